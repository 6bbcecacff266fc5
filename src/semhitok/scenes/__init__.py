"""Scenes: photographs with captioned cut-outs pasted on them, composed without end, with exact ground truth."""
