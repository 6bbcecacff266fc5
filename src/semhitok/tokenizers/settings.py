"""Settings of a tokenizer as plain values, for ``semhitok inspect`` and other displays of checkpoints."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from semhitok.tokenizers.protocol import Tokenizer


def settings_of(model: Any) -> dict[str, Any]:
    """Type, stages, sizes, bits per image, parameters by part, licence and training data; JSON-serialisable.

    A model that is not a registered ``Tokenizer`` has only its type.
    """
    config = model.config
    if not isinstance(model, Tokenizer):
        return {"type": config.model_type}
    return {
        "type": config.model_type,
        "stages": config.stages,
        "image_size": config.image_size,
        "tokens": model.num_tokens,
        **model.settings(),
        "parameters": parameters_of(model),  # pyright: ignore[reportArgumentType]
        "provenance": config.provenance,
    }


def code_settings(tokens: int, codes_per_token: int, vocab_size: int) -> dict[str, Any]:
    """The part of ``settings`` about codes, for tokenizers that have them."""
    return {
        "codes_per_token": codes_per_token,
        "vocab_size": vocab_size,
        "bits_per_image": round(tokens * codes_per_token * math.log2(vocab_size), 1),
    }


def parameters_of(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters by part, and of ``all``."""
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parts |= {name: parameter.numel() for name, parameter in model.named_parameters(recurse=False)}
    return parts | {"all": sum(parts.values())}
