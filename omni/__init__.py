"""Omni: an omni-modal, real-time conversational assistant.

This package stays light: importing it loads neither torch nor a model.
"""

__version__ = "0.1.0"
