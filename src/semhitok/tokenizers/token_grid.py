"""The grid of tokens of an image, as every tokenizer's configuration knows it."""

from __future__ import annotations

from typing import Any


class TokenGrid:
    """Part of a configuration with ``patch_size``, the side in pixels of one token."""

    patch_size: Any

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of that size in pixels."""
        return height // self.patch_size, width // self.patch_size
