"""Token ids on disk: .npy, .json or .safetensors, all holding ids (B,N), or (B,N,C) for C codes per token, and the grid."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.storage.atomic import atomic_file, write_text

FORMATS = (".npy", ".json", ".safetensors")
Grid = tuple[int, int]


def save_ids(path: Path, ids: Tensor, grid: Grid, names: list[str]) -> None:
    """Write ids (B,N) or (B,N,C).

    ``.npy`` holds the ids as (B, rows, columns) or (B, rows, columns, C), and the names are written as a list beside it (see
    ``names_file``); the others hold ids as they are, grid and names.

    Raises:
        ValueError: an unknown file suffix.
        WriteError: the disk is full, or the like.
    """
    check_format(path)
    ids = ids.cpu().contiguous()
    with atomic_file(path) as unfinished:
        if path.suffix == ".npy":
            unfinished.write_bytes(npy_of_ids(ids, grid))
            write_text(names_file(path), json.dumps(names, indent=1))
        elif path.suffix == ".json":
            unfinished.write_text(json.dumps({"grid": list(grid), "names": names, "ids": ids.tolist()}))
        else:
            save_file({"ids": ids, "grid": torch.tensor(grid)}, unfinished, metadata={"names": json.dumps(names)})


def names_file(path: Path) -> Path:
    """The file beside ``ids.npy`` that names the image of each row: ``ids.names.json``."""
    return path.with_suffix(".names.json")


def load_ids(path: Path) -> tuple[Tensor, Grid | None]:
    """Ids (B,N) or (B,N,C) and the grid, None if the file has no grid and the images are square.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold whole numbers of that shape.
    """
    check_format(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        ids, grid = _read(path)
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(f"{path} holds no token ids as `semhitok encode` writes them ({error})") from error
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim not in (2, 3) or ids.is_floating_point() or not ids.numel():
        raise ValueError(
            f"{path} must hold whole numbers of shape (images, tokens) or (images, rows, columns), with a last axis for "
            f"several codes per token, got {ids.dtype} {tuple(ids.shape)}"
        )
    if grid is not None and grid[0] * grid[1] != ids.shape[1]:
        raise ValueError(f"{path} holds {ids.shape[1]} tokens per image and a grid of {grid[0]}x{grid[1]}")
    return ids.long(), grid


def npy_of_ids(ids: Tensor, grid: Grid) -> bytes:
    """Ids (B,N) or (B,N,C) as a .npy file of shape (B, rows, columns) or (B, rows, columns, C)."""
    return npy_of(ids.cpu().contiguous().unflatten(1, grid).numpy())


def npy_of(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def ids_of_npy(data: bytes) -> tuple[Tensor, Grid | None]:
    """Ids of a .npy file: (B,N) without a grid, or (B,N) or (B,N,C) with the grid of its second and third axis.

    Raises:
        ValueError: it is no such file, or its length is not what its header says. Nothing is unpickled.
    """
    file = io.BytesIO(data)  # not numpy.load, which opens zip files and pickles, too
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"the format version {version[0]}.{version[1]} is not known")
    shape, fortran_order, dtype = read_header(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"ids must be numbers, got {dtype}")
    # Compared before anything is allocated: the shape is the writer's claim.
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{len(data) - file.tell()} bytes do not hold an array of shape {shape} and type {dtype}")
    array = np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")
    ids = torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))
    return (ids.flatten(1, 2), (ids.shape[1], ids.shape[2])) if ids.ndim in (3, 4) else (ids, None)


def codes_per_token(ids: Tensor) -> int:
    """C of ids (B,N,C); 1 for (B,N)."""
    return ids.shape[2] if ids.ndim == 3 else 1


def check_format(path: Path) -> None:
    """Raise a ``ValueError`` for a file name with an unknown suffix."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: ids are read and written as {', '.join(FORMATS)}")


def _read(path: Path) -> tuple[Tensor, Grid | None]:
    if path.suffix == ".npy":
        return ids_of_npy(path.read_bytes())
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        content = content if isinstance(content, dict) else {"ids": content}
        return torch.tensor(content["ids"]), _grid(content.get("grid"))
    tensors = load_file(path)
    return tensors["ids"], _grid(tensors["grid"].tolist() if "grid" in tensors else None)


def _grid(sizes: list[int] | None) -> Grid | None:
    if sizes is None:
        return None
    rows, columns = sizes
    return int(rows), int(columns)
