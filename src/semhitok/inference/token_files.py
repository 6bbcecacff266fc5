"""Token ids on disk: .npy, .json or .safetensors, all holding ids (B,N), or (B,N,C) for C codes per token, and the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import read_array
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
            with unfinished.open("wb") as file:  # given a name, numpy would append its own suffix
                np.save(file, ids.unflatten(1, grid).numpy())
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


def codes_per_token(ids: Tensor) -> int:
    """C of ids (B,N,C); 1 for (B,N)."""
    return ids.shape[2] if ids.ndim == 3 else 1


def check_format(path: Path) -> None:
    """Raise a ``ValueError`` for a file name with an unknown suffix."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: ids are read and written as {', '.join(FORMATS)}")


def _read(path: Path) -> tuple[Tensor, Grid | None]:
    if path.suffix == ".npy":
        with path.open("rb") as file:  # not numpy.load, which opens zip files and pickles, too
            ids = torch.from_numpy(read_array(file, allow_pickle=False))
        return (ids.flatten(1, 2), (ids.shape[1], ids.shape[2])) if ids.ndim in (3, 4) else (ids, None)
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
