"""A model of the sizes of the tiny released files."""

from __future__ import annotations

from typing import Any

import torch
from tests.tokenizers.unitok.released import TINY

from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config


def tiny(**changes: Any) -> UniTokModel:
    torch.manual_seed(0)
    text = text_tower_config(
        clip_text_tokenizer(), width=TINY.text_channels, layers=TINY.text_layers, heads=TINY.text_heads, embed_dim=48
    )
    return UniTokModel(
        UniTokConfig(
            **{
                "image_size": 64,
                "stem_width": TINY.stem,
                "stage_widths": (*TINY.stages, TINY.channels),
                "stage_depths": TINY.depths,
                "depth": TINY.blocks,
                "heads": TINY.channels // 64,
                "width": TINY.width,
                "num_codebooks": TINY.codebooks,
                "codebook_size": TINY.entries,
                "text_config": text,
                "embed_dim": TINY.embed,
            }
            | changes
        )
    ).eval()
