"""Trained bridges from the encoders' states into the embedding space of the shared LLM."""
