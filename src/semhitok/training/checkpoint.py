"""Checkpoints of a training run: tensors as safetensors, everything else as JSON, written atomically.

A checkpoint is a folder ``step_00000500`` with ``tensors.safetensors`` and ``values.json``. It is written under another
name, flushed to disk and renamed, so a folder with this name is always complete. No pickle is involved. Checksums of each
tensor and of the values reveal later damage; checkpoints of versions without them are read as they are.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.storage.atomic import REPLACED, UNFINISHED, atomic_directory

FORMAT = 1
VALUES, TENSORS = "values.json", "tensors.safetensors"
_NAME = re.compile(r"step_(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or a state cannot be stored; the message is one sentence for the user."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written; an earlier one may be whole."""


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
    target = folder_of(directory, step)
    tensors: dict[str, Tensor] = {}
    document: dict[str, Any] = {"format": FORMAT, "step": step, "state": _pack(state, "", tensors)}
    document["tensors"] = {name: _checksum(tensor) for name, tensor in tensors.items()}
    document["checksum"] = _checksum_of_values(document)
    for leftover in (*directory.glob(f"{UNFINISHED}*"), *directory.glob(f"{REPLACED}*")):
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_directory(target) as folder:
        save_file(tensors, folder / TENSORS)
        (folder / VALUES).write_text(json.dumps(document), encoding="utf-8")
    for old in _all(directory)[:-keep]:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save`` wrote.

    Raises:
        DamagedError: the folder is not a checkpoint, or its content differs from what was written.
        CheckpointError: it has another format.
    """
    try:
        document = json.loads((path / VALUES).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS, device=str(device))
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise DamagedError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(document, dict):
        raise DamagedError(f"{path} is not a readable checkpoint: {VALUES} holds no checkpoint's values")
    if document.get("format") != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {document.get('format')}, this version reads {FORMAT}")
    if "checksum" in document and document["checksum"] != _checksum_of_values(document):
        raise DamagedError(f"{path} is damaged: {VALUES} is not as it was written")
    if (match := _NAME.fullmatch(path.name)) and document.get("step") != int(match[1]):
        raise DamagedError(f"{path} is not what its name says: it holds step {document.get('step')}")
    try:
        wrong = [name for name, value in document.get("tensors", {}).items() if _differs(tensors.get(name), value)]
        if wrong:
            listed = f"{', '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}"
            raise DamagedError(f"{path} is damaged: {len(wrong)} tensors are not as they were written: {listed}")
        state = _unpack(document["state"], tensors)
    except DamagedError:
        raise
    except KeyError as error:
        raise DamagedError(f"{path} is damaged: {error} is missing from it") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {VALUES} holds no checkpoint's values") from error
    if tensors:
        raise DamagedError(f"{path} is damaged: unexpected tensors {', '.join(sorted(tensors))}")
    return state


def folder_of(directory: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return directory / f"step_{step:08d}"


def newest_readable(directory: Path, say: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
    """The most steps of which a checkpoint can be read, and what ``load`` gives for it; None if there is no checkpoint.

    Args:
        directory: of all checkpoints of the run.
        say: takes a line about each newer one that was passed over.

    Raises:
        CheckpointError: there are checkpoints, and none can be read, or the newest whole one is of another format.
    """
    damaged: list[tuple[Path, str]] = []
    for step, path in reversed(_named(directory)):
        try:
            state = load(path)
        except DamagedError as error:
            damaged.append((path, str(error)))
            continue
        for _, reason in damaged:
            say(f"{reason}; the run goes on from {path.name}")
        return step, state
    lost = [reason for path, reason in damaged if (path / VALUES).exists() or (path / TENSORS).exists()]
    if lost:
        raise CheckpointError(f"{lost[0]}; no earlier checkpoint can be read: delete {directory} to begin anew")
    for path, _ in damaged:
        say(f"{path} is passed over: it holds no checkpoint")
    return None


def latest(directory: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    found = _all(directory)
    return found[-1] if found else None


def _all(directory: Path) -> list[Path]:
    """Complete checkpoints in ascending order of steps."""
    return [path for _, path in _named(directory) if (path / VALUES).is_file() and (path / TENSORS).is_file()]


def _named(directory: Path) -> list[tuple[int, Path]]:
    """Everything named like a checkpoint, in ascending order of steps."""
    if not directory.is_dir():
        return []
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def _differs(tensor: Tensor | None, checksum: str) -> bool:
    """Whether a tensor is not as it was written; a missing one is named by ``_unpack``."""
    return tensor is not None and _checksum(tensor) != checksum


def _checksum(tensor: Tensor) -> str:
    """CRC-32 of type, shape and bytes, in hex: against accidents, not against forgery."""
    head = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    values = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{zlib.crc32(values.data, head):08x}"


def _checksum_of_values(document: Mapping[str, Any]) -> str:
    """CRC-32 of all other entries, in hex; JSON that was read and written again is the same text."""
    entries = {name: value for name, value in document.items() if name != "checksum"}
    return f"{zlib.crc32(json.dumps(entries, sort_keys=True).encode()):08x}"


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
