"""Drawing: what can be drawn, its pictures to learn from, the networks, and their training."""
