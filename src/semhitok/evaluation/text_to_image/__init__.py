"""Images generated from prompts, and a judge that scores them."""
