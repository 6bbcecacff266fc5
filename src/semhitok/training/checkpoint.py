"""Checkpoints of a training run: tensors as safetensors, everything else as JSON, written atomically.

A checkpoint is a folder ``step_00000500`` with ``tensors.safetensors`` and ``values.json``. It is written under another
name, flushed to disk and renamed, so a folder with this name is always complete. No pickle is involved.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.storage.atomic import UNFINISHED, atomic_directory

FORMAT = 1
_NAME = re.compile(r"step_(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or a state cannot be stored; the message is one sentence for the user."""


def save(directory: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write a checkpoint and delete the oldest ones.

    Args:
        directory: holds all checkpoints of the run; created if missing.
        step: optimizer steps done; names the checkpoint. An existing checkpoint of this step is replaced.
        state: nested dicts, lists and tuples of tensors, numbers, text and None.
        keep: how many checkpoints to keep, including this one.

    Raises:
        WriteError: the disk is full or not writable; older checkpoints are left untouched.
        CheckpointError: a value is neither plain nor a tensor.
    """
    target = directory / f"step_{step:08d}"
    tensors: dict[str, Tensor] = {}
    document = {"format": FORMAT, "step": step, "state": _pack(state, "", tensors)}
    for leftover in directory.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_directory(target) as folder:
        save_file(tensors, folder / "tensors.safetensors")
        (folder / "values.json").write_text(json.dumps(document), encoding="utf-8")
    for old in _all(directory)[:-keep]:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save`` wrote.

    Raises:
        CheckpointError: the folder is not a checkpoint, is damaged, or has another format.
    """
    try:
        document = json.loads((path / "values.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "tensors.safetensors", device=str(device))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if document.get("format") != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {document.get('format')}, this version reads {FORMAT}")
    try:
        state = _unpack(document["state"], tensors)
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: {error} is missing from it") from error
    if tensors:
        raise CheckpointError(f"{path} is damaged: unexpected tensors {', '.join(sorted(tensors))}")
    return state


def latest(directory: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    found = _all(directory)
    return found[-1] if found else None


def _all(directory: Path) -> list[Path]:
    """Complete checkpoints in ascending order of steps."""
    if not directory.is_dir():
        return []
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON document of the same structure, in which a tensor's name refers to its entry in ``tensors``.

    Dicts become lists of pairs, because JSON would turn the optimizer's integer keys into strings.
    """
    if isinstance(value, Tensor):
        # Copied, because safetensors refuses tensors that share memory, and one may be a view of another.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key, name), _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    return _plain(value, name)


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"cannot store {name or 'the state'}: {type(value).__name__} is neither a plain value nor a tensor"
    )


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``_pack``; takes each tensor out of ``tensors``."""
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    match kind:
        case "tensor":
            return tensors.pop(content)
        case "dict":
            return {key: _unpack(item, tensors) for key, item in content}
        case "list":
            return [_unpack(item, tensors) for item in content]
        case "tuple":
            return tuple(_unpack(item, tensors) for item in content)
    raise KeyError(kind)
