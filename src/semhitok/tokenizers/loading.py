"""Loading of any registered tokenizer by the type of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from semhitok.tokenizers.checkpoints import builtin_checkpoint, find_model_type, hub_options
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.registry import RELEASED, TOKENIZERS, tokenizer_kind


def load_tokenizer(
    place: str | Path, *, encoder: bool = True, dtype: torch.dtype = torch.float32, **options: Any
) -> Tokenizer:
    """Load a checkpoint of a registered tokenizer, or a released one of the classes of transformers, strictly.

    Args:
        place: a folder, a hub id, or the name of a checkpoint bundled with the package.
        encoder: False omits the parts that only encoding needs.
        dtype: dtype of the weights; codebooks stay in fp32.
        options: as in transformers, such as ``subfolder`` or ``revision``.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint has another type, or keys are missing, unexpected or of another shape.
    """
    path = builtin_checkpoint(str(place))
    found = find_model_type(path, **hub_options(options))
    if found in RELEASED:
        released: Any = tokenizer_kind("released_tokenizer").model_class
        return released.from_released(path, encoder=encoder, **options).to(dtype)
    if found not in TOKENIZERS:
        known = " or ".join(map(repr, (*TOKENIZERS, *RELEASED)))
        raise ValueError(f"{path} holds a model of type {found!r}, expected {known}")
    model_class: Any = tokenizer_kind(found).model_class
    return model_class.from_pretrained(path, encoder=encoder, dtype=dtype, **options)
