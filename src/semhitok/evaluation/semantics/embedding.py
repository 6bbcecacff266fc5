"""Protocols of tokenizers that embed images and texts in one space, as far as the evaluation needs them.

Shapes: B images, T texts, L text ids of the longest text, E channels of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class ImageEmbedder(Protocol):
    """Whole images to vectors."""

    def image_embedding(self, pixel_values: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> (B,E), l2-normalised."""
        ...


@runtime_checkable
class TextEmbedder(Protocol):
    """Texts to vectors."""

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text ids (T,L) -> (T,E), l2-normalised."""
        ...


class TextTokenizer(Protocol):
    """A text tokenizer of transformers: a list of texts to ``input_ids`` and ``attention_mask``, (T,L)."""

    def __call__(
        self, text: list[str], *, padding: bool, truncation: bool, split_special_tokens: bool, return_tensors: str
    ) -> Mapping[str, Any]: ...


@torch.no_grad()
def embed_texts(
    model: TextEmbedder, text_tokenizer: TextTokenizer, texts: Sequence[str], *, batch_size: int = 256
) -> Tensor:
    """Embeddings of texts (T,E), fp32 on the CPU; the text tokenizer truncates texts that are too long.

    Args:
        model: on any device; texts are moved there.
        text_tokenizer: the model's own.
        texts: at least one.
        batch_size: texts per batch.
    """
    device = getattr(model, "device", "cpu")
    parts = []
    for start in range(0, len(texts), batch_size):
        part = list(texts[start : start + batch_size])
        tokens = text_tokenizer(part, padding=True, truncation=True, split_special_tokens=True, return_tensors="pt")
        embedded = model.text_embedding(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
        parts.append(embedded.float().cpu())
    return torch.cat(parts)
