"""What every image tokenizer here offers; the language model and the evaluation know nothing else.

Shapes: B images, N tokens, C codes per token.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from semhitok.types import Embedded, Encoded


@runtime_checkable
class ImageTokenizer(Protocol):
    """Images <-> discrete tokens.

    Attributes:
        config: has ``image_size``, the side in pixels that ``encode`` expects by default.
        vocab_size: number of joint ids.
        num_tokens: tokens N of a square image of the default size.
        codes_per_token: C; 1 for SemHiTok.
    """

    config: Any

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def codes_per_token(self) -> int: ...

    def encode(self, pixel_values: Tensor) -> Encoded:
        """(B,3,H,W) in [-1,1] -> ids (B,N), or (B,N,C)."""
        ...

    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """ids (B,N) or (B,N,C) -> (B,3,H,W) clamped to [-1,1]; ``grid`` (rows, columns) for non-square images."""
        ...

    def embed(self, ids: Tensor) -> Embedded:
        """ids -> the features a language model takes in."""
        ...
