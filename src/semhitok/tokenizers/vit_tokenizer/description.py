"""Self-description of the ViT tokenizer for ``semhitok inspect`` and model cards."""

from __future__ import annotations

from typing import Any

from semhitok.tokenizers.protocol import CardFacts
from semhitok.tokenizers.settings import code_settings
from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig


def settings(config: ViTTokenizerConfig, tokens: int) -> dict[str, Any]:
    """See the protocol ``Tokenizer``."""
    return {
        "system": config.system,
        "quantizer": config.quantizer,
        "code_channels": config.code_dim,
        "semantic_channels_from_teacher": config.semantic_dim,
        "semantic_decoder": f"{config.semantic_decoder_layers} layers" if config.semantic_channels else "none",
        **code_settings(tokens, config.codes_per_token, config.vocab_size),
    }


def card_facts(config: ViTTokenizerConfig) -> CardFacts:
    """See the protocol ``Tokenizer``."""
    rows = [
        ["quantizer", f"{config.quantizer}, {config.code_dim} channels"],
        ["codes per token", f"{config.codes_per_token} of {config.codebook_size:,}"],
        ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
    ]
    if config.semantic_dim:
        assert config.teacher_config is not None
        kind = config.teacher_config.backbone_config.model_type
        rows.append(["teacher's share of the channels", f"{config.semantic_dim}, from a frozen {kind}"])
    if config.semantic_channels:
        rows.append(
            ["semantic decoder", f"{config.semantic_decoder_layers} layers, on {config.semantic_channels} channels"]
        )
    return CardFacts(
        name=f"{config.system} (comparison)",
        paper="rebuilt on the ViT of this package, see docs/comparison.md",
        rows=rows,
        limits=[
            "It stands for the published system in a comparison on equal terms: its size, data and budget are not the paper's.",
            f"Made for {config.image_size} x {config.image_size} pixels; other multiples of {config.patch_size} work but were "
            "not trained.",
        ],
    )
