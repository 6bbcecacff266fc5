"""What a tokenizer gives back, uses and leaves untouched."""
