"""Reconstruction, codebook usage and rate of a tokenizer, and whether its stages conflict."""
