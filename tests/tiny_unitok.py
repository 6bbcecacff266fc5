"""A tiny UniTok with a text tower of its own words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tests.tiny import shake
from transformers import CLIPTokenizer

from semhitok.tokenizers import TokenizerImageProcessor, UniTokConfig, UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import text_tower_config, train_text_tokenizer

SIZE = 32
SIZES: dict[str, Any] = {
    "image_size": SIZE,
    "stem_width": 8,
    "stage_widths": (8, 16, 32),
    "stage_depths": (1, 1),
    "decoder_stage_depths": (1, 1),
    "depth": 1,
    "heads": 2,
    "width": 8,
    "num_codebooks": 4,
    "codebook_size": 16,
    "embed_dim": 12,
}
WORDS = ["a photo of an owl", "two horses in front of green grass", "a drawing of a red kite", "an image of a bell"]


def tiny_unitok(seed: int = 0, *, text: bool = True, **changes: Any) -> UniTokModel:
    """32 px, 4 tokens of 4 x 16 codes; random weights. ``changes`` are fields of the configuration."""
    fields = dict(SIZES)
    if text:
        tower = text_tower_config(text_tokenizer(), width=16, layers=1, heads=2, embed_dim=12)
        fields["text_config"] = tower
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UniTokModel(UniTokConfig(**(fields | changes))).eval()
        shake(model)
    return model


@cache
def text_tokenizer() -> CLIPTokenizer:
    """Learned from ``WORDS``."""
    return train_text_tokenizer(WORDS, 540, context_length=32)


def save_unitok(folder: Path, **options: Any) -> Path:
    """As training leaves it: model, image processor, text tokenizer."""
    model = tiny_unitok(**options)
    model.save_pretrained(folder)
    if model.text_model is not None:
        UniTokProcessor(TokenizerImageProcessor(size=SIZE), text_tokenizer()).save_pretrained(folder)
    return folder
