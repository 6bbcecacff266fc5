"""Self-description of SemHiTok for ``semhitok inspect`` and model cards."""

from __future__ import annotations

from typing import Any

from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.protocol import CardFacts
from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.tokenizers.settings import code_settings


def settings(config: SemHiTokConfig, tokens: int) -> dict[str, Any]:
    """See the protocol ``Tokenizer``."""
    return {
        "semantic_codebook_size": config.semantic_codebook_size,
        "subcodebook_size": config.subcodebook_size,
        "smallest_subcodebook_size": min(config.subcodebook_sizes or [config.subcodebook_size]),
        "pixel_codebook": config.pixel_codebook,
        **code_settings(tokens, 1, config.vocab_size),
    }


def card_facts(config: SemHiTokConfig) -> CardFacts:
    """See the protocol ``Tokenizer``."""
    limits = []
    if config.teacher_config.built_in:
        limits.append(
            "The teacher learned ImageNet's classes and no language: semantic codes know less of the world than those of "
            "a text-aligned teacher such as the paper's SigLIP."
        )
    return CardFacts(
        name="SemHiTok",
        paper="arXiv 2503.06764",
        rows=[
            ["semantic codes", f"{config.semantic_codebook_size:,} of {config.semantic_dim} channels"],
            ["pixel codes under each", f"{_sizes(config)} of {config.pixel_dim} channels"],
            ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
            ["teacher", _teacher(config.teacher_config)],
        ],
        limits=[
            *limits,
            f"Made for {config.image_size} x {config.image_size} pixels; other sizes work but were not trained.",
        ],
    )


def _sizes(config: SemHiTokConfig) -> str:
    if config.subcodebook_sizes is None:
        return f"{config.subcodebook_size:,}"
    return f"{min(config.subcodebook_sizes):,} to {max(config.subcodebook_sizes):,}"


def _teacher(config: TeacherConfig) -> str:
    name = config.backbone_config.model_type
    if config.built_in:
        name = "EfficientNet-Lite0 (Tan and Le, 2019; trained on ImageNet; Apache-2.0), its stride-16 grid"
    return f"{name}, fed {config.image_size} px, frozen"
