"""The values that cross a boundary between packages.

Shapes: B images, N tokens (patches), C codes per token, D feature channels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass(frozen=True)
class Quantized:
    """What every quantizer returns.

    Attributes:
        codes: (B,N,D) quantized features; gradients pass straight through to the quantizer's input.
        ids: (B,N) int64 index of the chosen code.
        losses: the quantizer's own terms, unweighted, by name (``codebook``, ``commitment``); scalars.
    """

    codes: Tensor
    ids: Tensor
    losses: dict[str, Tensor]


@dataclass
class Encoded(ModelOutput):
    """Images as tokens.

    Attributes:
        ids: (B,N) int64 joint ids in [0, vocab_size); (B,N,C) for tokenizers with several codes per token.
        semantic_ids: (B,N) int64 semantic part of each id, where the tokenizer has one.
        grid: (2,) int64, rows and columns of the token grid; rows * columns = N.
    """

    ids: torch.LongTensor | None = None
    semantic_ids: torch.LongTensor | None = None
    grid: torch.LongTensor | None = None


@dataclass
class Embedded(ModelOutput):
    """Features of token ids, the language model's input.

    Attributes:
        semantic: (B,N,d_s) semantic codes.
        pixel: (B,N,d_p) pixel codes, l2-normalised.
    """

    semantic: torch.FloatTensor | None = None
    pixel: torch.FloatTensor | None = None


@dataclass
class TokenizerOutput(ModelOutput):
    """A full pass: image to tokens to image, with what training needs.

    Attributes:
        reconstruction: (B,3,H,W) in [-1,1] up to overshoot (not clamped).
        ids: (B,N) int64 joint ids.
        losses: the quantizer's unweighted terms by name.
        pixel_features: (B,N,d_p) pixel features before quantization, not normalised.
    """

    reconstruction: torch.FloatTensor | None = None
    ids: torch.LongTensor | None = None
    losses: dict[str, Tensor] | None = None
    pixel_features: torch.FloatTensor | None = None


def cache_directory() -> Path:
    """Folder for fetched weights and data: ``$SEMHITOK_CACHE``, or ``~/.cache/semhitok``."""
    return Path(os.environ.get("SEMHITOK_CACHE") or Path.home() / ".cache" / "semhitok")
