"""Data to train on: fetched, made, kept in shards, read as a stream, and shown."""
