"""Generated ids in parts: texts and images.

Shapes: L positions, N tokens of one image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from semhitok.mllm.vocabulary import Vocabulary

TEXT, VISUAL, NEITHER = range(3)


def kinds_of(vocabulary: Vocabulary, ids_L: Tensor) -> Tensor:
    """The kind of each id (L): text, visual, or neither (image marks and placeholders)."""
    marks = torch.tensor([vocabulary.image_begin_id, vocabulary.image_end_id, vocabulary.placeholder_id])
    kinds_L = torch.where(torch.isin(ids_L, marks.to(ids_L.device)), NEITHER, TEXT)
    return kinds_L.masked_fill(vocabulary.is_visual(ids_L), VISUAL)


def texts_and_images(
    vocabulary: Vocabulary, text_tokenizer: Any, ids_L: Tensor, options: dict[str, Any]
) -> list[str | Tensor]:
    """Texts, and ids (N) of images, in order; ``options`` are for the text tokenizer's ``decode``."""
    parts: list[str | Tensor] = []
    kinds, counts = kinds_of(vocabulary, ids_L).unique_consecutive(return_counts=True)
    for kind, part in zip(kinds.tolist(), ids_L.split(counts.tolist()), strict=True):
        if kind == TEXT:
            parts.append(text_tokenizer.decode(part.tolist(), **options))
        elif kind == VISUAL:
            parts.append(vocabulary.tokenizer_ids(part))
    return parts
