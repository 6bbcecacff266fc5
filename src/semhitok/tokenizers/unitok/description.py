"""Self-description of UniTok for ``semhitok inspect`` and model cards."""

from __future__ import annotations

from typing import Any

from semhitok.tokenizers.protocol import CardFacts
from semhitok.tokenizers.settings import code_settings
from semhitok.tokenizers.unitok.configuration import UniTokConfig


def settings(config: UniTokConfig, tokens: int) -> dict[str, Any]:
    """See the protocol ``Tokenizer``; continuous features (``quantizer`` none) have no code settings."""
    text = config.text_config
    tower = text and {
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "vocab_size": text.vocab_size,
        "context_length": text.max_position_embeddings,
    }
    discrete = config.quantizer != "none"
    return {
        "quantizer": config.quantizer,
        "projection": config.projection,
        "code_channels": config.width,
        "embed_dim": config.embed_dim,
        "text_tower": tower or "none",
        **(code_settings(tokens, config.codes_per_token, config.vocab_size) if discrete else {}),
    }


def card_facts(config: UniTokConfig) -> CardFacts:
    """See the protocol ``Tokenizer``."""
    if config.quantizer == "none":
        raise ValueError("a model with continuous features (quantizer none) is not a tokenizer that can be shared")
    quantizer = {"multi_codebook": "codebooks", "residual": "residual depths of one codebook"}[config.quantizer]
    rows = [
        ["codes per token", f"{config.num_codebooks} {quantizer}"],
        ["codes of each", f"{config.codebook_size:,}; {config.width} channels per token"],
        ["projection to these channels", config.projection],
        ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
    ]
    imports, use, limits = [], [], []
    text = config.text_config
    if text is None:
        rows.append(["text tower", "none"])
    else:
        rows.append(
            ["text tower", f"{text.num_hidden_layers} layers of {text.hidden_size}, {text.vocab_size:,} text ids"]
        )
        imports = ["from semhitok.tokenizers.unitok.processing import UniTokProcessor"]
        use = [
            'texts = UniTokProcessor.from_pretrained("NAME")(text=["a horse", "an owl"])',
            f"likeness = model.image_embedding(images) @ model.text_embedding(**texts).T  # (1, 2), {config.embed_dim}-d",
        ]
        limits.append("The text tower knows the words of its training captions, in English.")
    return CardFacts(
        name="UniTok",
        paper="arXiv 2502.20321",
        rows=rows,
        imports=imports,
        use=use,
        limits=[
            *limits,
            f"Made for {config.image_size} x {config.image_size} pixels; other multiples of {config.patch_size} work but "
            "were not trained.",
        ],
    )
