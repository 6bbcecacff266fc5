"""Scenes: captioned cut-outs pasted on photographs, generated endlessly with exact ground truth."""
