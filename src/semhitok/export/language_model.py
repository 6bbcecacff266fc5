"""From a finished run of the unified language model to a checkpoint to share: bf16, and no weights that the package ships.

Everything but the image tokenizer is stored in bf16. A tokenizer that is shipped with the package is not written at all (see
``semhitok.mllm.shared_tokenizer``); another one stays in fp32, so that its ids are bit-identical. The configuration says
float32, so that loading gives fp32 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.export.tokenizer import WEIGHTS, Shipped
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.shared_tokenizer import PREFIX, find_shipped
from semhitok.storage.atomic import atomic_directory
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

FILES = frozenset(
    {WEIGHTS, "config.json", "generation_config.json", "processor_config.json", "README.md"}
    | {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"}
)


def ship_language(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    folder: Path,
    *,
    card: str,
    provenance: Mapping[str, Any],
) -> Shipped:
    """Write a checkpoint to share; it is loaded and compared before it takes its place.

    Args:
        model: in fp32, with the encoder side of its tokenizer.
        processor: of the model.
        folder: to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to what the model's configuration says of its origin, such as ``licence``.

    Raises:
        ValueError: the model is not in fp32 or lacks the encoder side of its tokenizer, or the folder holds other things.
        WriteError: the disk is full; an earlier export is untouched.
    """
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("the model to export must be in float32: load it with dtype=torch.float32")
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES) if folder.is_dir() else []
    if foreign or folder.is_file():
        raise ValueError(f"{folder} holds {', '.join(foreign[:3]) or 'data'}: export to a new or empty folder")
    config, fingerprint = model.config, tokenizer_fingerprint(model.image_tokenizer)
    earlier = getattr(config, "provenance", {})
    config.shared_tokenizer = find_shipped(model.image_tokenizer)
    config.tokenizer_fingerprint = fingerprint if config.shared_tokenizer else None
    config.provenance = {**earlier, **provenance, "stored": stored_as(config.shared_tokenizer)}
    try:
        with atomic_directory(folder) as unfinished:
            model.save_pretrained(unfinished)
            _forget_places(unfinished / "config.json")
            processor.save_pretrained(unfinished)
            (unfinished / "README.md").write_text(card, encoding="utf-8")
            kept = {
                name: _stored(name, tensor)
                for name, tensor in load_file(unfinished / WEIGHTS).items()
                if config.shared_tokenizer is None or not name.startswith(PREFIX)
            }
            save_file(kept, unfinished / WEIGHTS, metadata={"format": "pt"})
            _check(model, unfinished)
    finally:
        config.provenance, config.shared_tokenizer, config.tokenizer_fingerprint = earlier, None, None
    return Shipped(folder, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def _forget_places(path: Path) -> None:
    """Where the parts were loaded from says nothing to others; transformers writes it into nested configurations."""
    text = re.sub(r'("_name_or_path": )"[^"]*"', r'\1""', path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


def stored_as(shared_tokenizer: str | None) -> str:
    """What an export rounds and leaves out, in words."""
    tokenizer = (
        f"the image tokenizer is the shipped {shared_tokenizer}" if shared_tokenizer else "image tokenizer in float32"
    )
    return f"language model, adapter and head in bfloat16; {tokenizer}"


def _stored(name: str, tensor: Tensor) -> Tensor:
    return tensor if name.startswith(PREFIX) or not tensor.is_floating_point() else tensor.to(torch.bfloat16)


def _check(model: SemHiTokForConditionalGeneration, folder: Path) -> None:
    """What was written loads strictly, in fp32, and equals the model but for the rounding.

    The decoder of a shared tokenizer is the shipped one's, whatever the model was trained beside.
    """
    shared = model.config.shared_tokenizer is not None
    loaded = SemHiTokForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    own = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if shared and name.startswith(PREFIX):
            continue
        wanted, found = _stored(name, tensor).to(tensor.dtype), own[name]
        if found.dtype != tensor.dtype or not torch.equal(found, wanted.to(found.device)):
            raise ValueError(f"{folder} does not give {name} back as it was written: the export was not kept")
    if tokenizer_fingerprint(loaded.image_tokenizer) != tokenizer_fingerprint(model.image_tokenizer):
        raise ValueError(f"{folder} does not give the image tokenizer back: the export was not kept")
