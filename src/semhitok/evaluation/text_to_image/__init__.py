"""Images from prompts, and a judge of them."""
