"""What a tokenizer is, as plain values: for ``semhitok inspect`` and for whoever shows checkpoints."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from semhitok.tokenizers.loading import Tokenizer
from semhitok.tokenizers.semhitok import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.unitok import UniTokConfig, UniTokModel


def settings_of(model: Tokenizer) -> dict[str, Any]:
    """Type, stages, sizes, bits per image, parameters by part, licence and training data; fit for JSON."""
    config = model.config
    common = {
        "type": config.model_type,
        "stages": config.stages,
        "image_size": config.image_size,
        "tokens": model.num_tokens,
    }
    match model:
        case SemHiTokModel():
            own = _semhitok(model.config)
        case UniTokModel():
            own = _unitok(model.config)
    discrete = {
        "codes_per_token": model.codes_per_token,
        "vocab_size": model.vocab_size,
        "bits_per_image": round(model.num_tokens * model.codes_per_token * math.log2(model.vocab_size), 1),
    }
    if own.get("quantizer") == "none":  # continuous features: there are no codes
        discrete = {}
    return common | own | discrete | {"parameters": parameters_of(model), "provenance": config.provenance}


def parameters_of(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters by part, and of ``all``."""
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parts |= {name: parameter.numel() for name, parameter in model.named_parameters(recurse=False)}
    return parts | {"all": sum(parts.values())}


def _semhitok(config: SemHiTokConfig) -> dict[str, Any]:
    return {
        "semantic_codebook_size": config.semantic_codebook_size,
        "subcodebook_size": config.subcodebook_size,
        "smallest_subcodebook_size": min(config.subcodebook_sizes or [config.subcodebook_size]),
        "pixel_codebook": config.pixel_codebook,
    }


def _unitok(config: UniTokConfig) -> dict[str, Any]:
    text = config.text_config
    tower = text and {
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "vocab_size": text.vocab_size,
        "context_length": text.max_position_embeddings,
    }
    return {
        "quantizer": config.quantizer,
        "projection": config.projection,
        "code_channels": config.width,
        "embed_dim": config.embed_dim,
        "text_tower": tower or "none",
    }
