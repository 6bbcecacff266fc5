"""Features of whole images from their token ids, of any tokenizer.

Shapes: B images, N tokens, C codes per token, D features.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from semhitok.tokenizers.protocol import ImageTokenizer
from semhitok.types import Encoded

CODES, PREDICTED = "codes", "predicted"


@runtime_checkable
class SemanticDecoding(Protocol):
    """A tokenizer whose semantic decoder predicts a teacher's features from ids."""

    def decode_semantic(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids -> features (B,N,D)."""
        ...


@torch.no_grad()
def image_features(model: ImageTokenizer, encoded: Encoded) -> dict[str, Tensor]:
    """Vectors (B,D) by kind, means over an image's tokens, fp32.

    ``codes``: all that ``embed`` returns, as a language model receives it. ``predicted``: the output of the semantic decoder,
    if the tokenizer has one (``semantic_decoder``, or SemHiTok's); it attends over the whole image, so it serves understanding
    alone.
    """
    embedded = model.embed(encoded.ids)
    parts = [part.float() for part in (embedded.semantic, embedded.pixel) if part is not None]
    found = {CODES: torch.cat(parts, dim=-1).mean(dim=1)}
    if isinstance(model, SemanticDecoding) and getattr(model, "semantic_decoder", model) is not None:
        found[PREDICTED] = model.decode_semantic(encoded.ids, encoded.grid).float().mean(dim=1)
    return found
