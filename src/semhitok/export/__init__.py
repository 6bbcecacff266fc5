"""Checkpoints to share, with their model cards."""
