"""The shared language model."""
