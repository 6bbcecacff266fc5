"""How much meaning the codes carry: labels, texts, variance."""
