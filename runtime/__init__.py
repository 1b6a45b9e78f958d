"""Conversation, turn taking, engine, the wire, the server."""
