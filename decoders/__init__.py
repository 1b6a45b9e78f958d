"""Step -> media: text, speech."""
