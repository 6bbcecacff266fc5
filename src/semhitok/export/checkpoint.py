"""Writing a checkpoint to share: one folder, fewer bytes, compared with its model before it is moved into place.

The configuration says float32 whatever is stored, so that loading gives fp32 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.storage.atomic import atomic_directory, write_text

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ExportedCheckpoint:
    """What was written.

    Attributes:
        folder: the checkpoint.
        sizes: bytes by file.
    """

    folder: Path
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def write_checkpoint(
    model: Any,
    folder: Path,
    *,
    files: frozenset[str],
    card: str,
    processor: Any,
    stored: Callable[[str, Tensor], Tensor | None],
    load: Callable[[Path], Any],
    **fields: Any,
) -> ExportedCheckpoint:
    """Write the folder in one step; an earlier export is replaced only if what was written equals the model.

    Args:
        model: in fp32.
        folder: folder to write; may hold an earlier export, which is replaced, and nothing else.
        files: names of the files that an export consists of.
        card: Markdown of the model card.
        processor: saved beside the model, if given.
        stored: maps a tensor's name and value to the tensor to store, or to None to leave it out.
        load: the model's ``from_pretrained``, in fp32.
        fields: set in the written configuration; the model's own is restored afterwards.

    Raises:
        ValueError: the model is not in fp32, the folder holds other things, or what was written does not load or differs from
            the model by more than the rounding.
        WriteError: the disk is full; an earlier export is untouched.
    """
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("the model to export must be in float32: load it with dtype=torch.float32")
    check_folder(folder, files)
    config = vars(model.config)
    earlier = dict(config)
    config.update(fields)
    try:
        with atomic_directory(folder) as unfinished:
            model.save_pretrained(unfinished)
            _forget_places(unfinished / "config.json")
            if processor is not None:
                processor.save_pretrained(unfinished)
            write_text(unfinished / "README.md", card)
            tensors = {name: stored(name, tensor) for name, tensor in load_file(unfinished / WEIGHTS).items()}
            kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
            save_file(kept, unfinished / WEIGHTS, metadata={"format": "pt"})
            _compare(model, load(unfinished).state_dict(), stored, unfinished)
    finally:
        config.clear()
        config.update(earlier)
    return ExportedCheckpoint(folder, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def check_folder(folder: Path, files: frozenset[str]) -> None:
    """Raise ``ValueError`` if a folder to export to is a file or holds other files than those of an export."""
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in files) if folder.is_dir() else []
    if foreign or folder.is_file():
        raise ValueError(f"{folder} holds {', '.join(foreign[:3]) or 'data'}: export to a new or empty folder")


def in_bfloat16(tensor: Tensor) -> Tensor:
    """The tensor rounded to bfloat16 if it is floating-point."""
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def _forget_places(path: Path) -> None:
    """Clear the local paths that transformers writes into nested configurations."""
    text = re.sub(r'("_name_or_path": )"[^"]*"', r'\1""', path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


def _compare(
    model: Any, loaded: dict[str, Tensor], stored: Callable[[str, Tensor], Tensor | None], folder: Path
) -> None:
    for name, tensor in model.state_dict().items():
        wanted, found = stored(name, tensor), loaded[name]
        if wanted is None:
            continue
        if found.dtype != tensor.dtype or not torch.equal(found, wanted.to(found.device, tensor.dtype)):
            raise ValueError(f"{folder} does not give {name} back as it was written: the export was not kept")
