"""Checkpoints of others: of a VQ-VAE's own class, or of a whole model that holds it under a prefix."""

from __future__ import annotations

import os
import re
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.checkpoints import find_model_type, hub_options, load_strictly
from semhitok.tokenizers.released.kinds import KINDS

PREFIX = r"^(model\.)?vqmodel\."
"""Under which Janus, Chameleon and Emu3 hold their VQ-VAE."""


def load_released(place: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    """The VQ-VAE of a checkpoint in fp32, strictly: of a whole model, no other weight is read.

    Args:
        place: a folder or a hub id.
        options: as in transformers, such as ``subfolder`` or ``revision``.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: as for ``load_strictly``.
    """
    found = find_model_type(place, **hub_options(options))
    if found in KINDS:
        return load_strictly(KINDS[found].model_class.from_pretrained, place, found, dtype="float32", **options)
    whole: Any = load_without_foreign_code(AutoConfig.from_pretrained, place, **hub_options(options))
    config = whole.vq_config
    kind = KINDS[config.model_type]

    def load(path: str | os.PathLike[str], **arguments: Any) -> Any:
        model, info = kind.model_class.from_pretrained(path, config=config, key_mapping={PREFIX: ""}, **arguments)
        own = {name for name in info["unexpected_keys"] if re.match(PREFIX, name) or name in model.state_dict()}
        return model, info | {"unexpected_keys": own}

    return load_strictly(load, place, str(found), dtype="float32", **options)
