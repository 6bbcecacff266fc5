"""Loading any tokenizer of this package by what its checkpoint says it is."""

from __future__ import annotations

from pathlib import Path

import torch

from semhitok.tokenizers.checkpoints import builtin_checkpoint, find_model_type
from semhitok.tokenizers.semhitok import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.unitok import UniTokConfig, UniTokModel

Tokenizer = SemHiTokModel | UniTokModel


def load_tokenizer(place: str | Path, *, encoder: bool = True, dtype: torch.dtype = torch.float32) -> Tokenizer:
    """Load a checkpoint of SemHiTok or UniTok, strictly.

    Args:
        place: a folder, a hub id, or the name of a checkpoint shipped with the package.
        encoder: False leaves out what only encoding needs.
        dtype: of the weights; codebooks stay in fp32.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of another class, or keys are missing, unexpected or of another shape.
    """
    path = builtin_checkpoint(str(place))
    match found := find_model_type(path):
        case SemHiTokConfig.model_type:
            return SemHiTokModel.from_pretrained(path, encoder=encoder, dtype=dtype)
        case UniTokConfig.model_type:
            return UniTokModel.from_pretrained(path, encoder=encoder, dtype=dtype)
        case _:
            accepted = f"{SemHiTokConfig.model_type!r} or {UniTokConfig.model_type!r}"
            raise ValueError(f"{path} holds a model of type {found!r}, expected {accepted}")
