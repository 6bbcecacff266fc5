"""What the codes mean: labels, texts, variance."""
