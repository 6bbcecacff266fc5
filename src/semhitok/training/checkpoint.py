"""Checkpoints of a training run: tensors as safetensors, everything else as JSON, written atomically.

A checkpoint is a folder ``step_00000500`` with ``tensors.safetensors`` and ``values.json``. It is written under another
name, flushed to disk and renamed, so a folder with this name is always complete. No pickle is involved. Checksums of each
tensor and of the values reveal later damage; checkpoints of versions without them are read as they are.

Tensors that are sharded among ranks are in ``shards/``, a file per rank (``distributed.shard_files``), with a checksum of each
file. ``load`` returns a ``Shards`` in place of such a tensor, and ``fill`` has every rank read its own part.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok import distributed
from semhitok.distributed.shard_files import damaged_files
from semhitok.storage.atomic import REPLACED, UNFINISHED, atomic_directory

FORMAT, SHARDED_FORMAT = 1, 2
VALUES, TENSORS, SHARDS = "values.json", "tensors.safetensors", "shards"
_NAME = re.compile(r"step_(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or a state cannot be stored; the message is one sentence for the user."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written; an earlier one may be whole."""


@dataclass(frozen=True)
class Shards:
    """A tensor of which every rank may read a part (``fill``).

    Attributes:
        folder: of the files.
        name: in the files.
        shape: of the whole tensor.
    """

    folder: Path
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """A state in three parts: a JSON document, whole tensors and sharded ones, to which it refers by name."""

    document: Any
    tensors: dict[str, Tensor]
    sharded: dict[str, Tensor]


def packed(state: Mapping[str, Any]) -> Packed:
    """The state as it is written; whole tensors are copied.

    Raises:
        CheckpointError: a value is neither plain nor a tensor.
    """
    tensors: dict[str, Tensor] = {}
    sharded: dict[str, Tensor] = {}
    return Packed(_pack(state, "", tensors, sharded), tensors, sharded)


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
    target, content = folder_of(directory, step), packed(state)
    remove_unfinished(directory)
    with atomic_directory(target) as folder:
        write_values(folder, step, content)
    remove_old(directory, keep, target)
    return target


def write_values(folder: Path, step: int, content: Packed, shards: Mapping[str, str] | None = None) -> None:
    """Write everything but sharded tensors.

    Args:
        folder: exists.
        step: optimizer steps done.
        content: from ``packed``.
        shards: checksums of the files of sharded tensors by name, if there are any; they are in the folder already.
    """
    document: dict[str, Any] = {"format": FORMAT if shards is None else SHARDED_FORMAT, "step": step}
    document["state"] = content.document
    document["tensors"] = {name: _checksum(tensor) for name, tensor in content.tensors.items()}
    if shards is not None:
        document["shards"] = dict(shards)
        document["shapes"] = {name: list(tensor.shape) for name, tensor in content.sharded.items()}
    document["checksum"] = _checksum_of_values(document)
    save_file(content.tensors, folder / TENSORS)
    (folder / VALUES).write_text(json.dumps(document), encoding="utf-8")


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed process left behind."""
    for leftover in (*directory.glob(f"{UNFINISHED}*"), *directory.glob(f"{REPLACED}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_old(directory: Path, keep: int, newest: Path) -> None:
    """Remove all but the last ``keep`` checkpoints, in any case not ``newest``."""
    for old in _all(directory)[:-keep]:
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)


def load(path: Path, *, device: torch.device | str = "cpu", verify_shards: bool = True) -> dict[str, Any]:
    """Read a checkpoint; of sharded tensors only where they are.

    Args:
        path: folder of the checkpoint.
        device: of the tensors.
        verify_shards: read all files of sharded tensors for their checksums; one rank is enough.

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
    if document.get("format") not in (FORMAT, SHARDED_FORMAT):
        raise CheckpointError(
            f"{path} has checkpoint format {document.get('format')}, this version reads {FORMAT} and {SHARDED_FORMAT}"
        )
    if "checksum" in document and document["checksum"] != _checksum_of_values(document):
        raise DamagedError(f"{path} is damaged: {VALUES} is not as it was written")
    if (match := _NAME.fullmatch(path.name)) and document.get("step") != int(match[1]):
        raise DamagedError(f"{path} is not what its name says: it holds step {document.get('step')}")
    try:
        wrong = [name for name, value in document.get("tensors", {}).items() if _differs(tensors.get(name), value)]
        if wrong:
            listed = f"{', '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}"
            raise DamagedError(f"{path} is damaged: {len(wrong)} tensors are not as they were written: {listed}")
        shards = {name: Shards(path / SHARDS, name, tuple(size)) for name, size in document.get("shapes", {}).items()}
        files = document.get("shards", {})
        if verify_shards and (wrong := damaged_files(path / SHARDS, files)):
            raise DamagedError(f"{path} is damaged: not as they were written, or missing: {', '.join(wrong[:3])}")
        state = _unpack(document["state"], tensors, shards)
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


def _pack(value: Any, name: str, tensors: dict[str, Tensor], sharded: dict[str, Tensor]) -> Any:
    """A JSON document of the same structure, in which a tensor's name refers to its entry in ``tensors`` or ``sharded``.

    Dicts become lists of pairs, because JSON would turn the optimizer's integer keys into strings.
    """
    if isinstance(value, Tensor) and distributed.is_sharded(value):
        sharded[name] = value.detach()
        return {"sharded": name}
    if isinstance(value, Tensor):
        # Copied, because safetensors refuses tensors that share memory, and one may be a view of another.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {
            "dict": [[_plain(key, name), _pack(item, f"{name}/{key}", tensors, sharded)] for key, item in value.items()]
        }
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}/{index}", tensors, sharded) for index, item in enumerate(value)]}
    return _plain(value, name)


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"cannot store {name or 'the state'}: {type(value).__name__} is neither a plain value nor a tensor"
    )


def _unpack(node: Any, tensors: dict[str, Tensor], shards: Mapping[str, Shards]) -> Any:
    """The inverse of ``_pack``; takes each tensor out of ``tensors``."""
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    match kind:
        case "tensor":
            return tensors.pop(content)
        case "sharded":
            return shards[content]
        case "dict":
            return {key: _unpack(item, tensors, shards) for key, item in content}
        case "list":
            return [_unpack(item, tensors, shards) for item in content]
        case "tuple":
            return tuple(_unpack(item, tensors, shards) for item in content)
    raise KeyError(kind)
