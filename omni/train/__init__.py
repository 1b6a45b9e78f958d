"""Training: recipes in Python, three stages, modalities in balance, checkpoints that resume."""
