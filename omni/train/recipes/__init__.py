"""The recipes that come with Omni; `omni train NAME` finds them here."""
