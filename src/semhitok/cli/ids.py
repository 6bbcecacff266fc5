"""Token ids on disk: .npy, .json or .safetensors, all holding ids (B,N) and the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMATS = (".npy", ".json", ".safetensors")


def save_ids(path: Path, ids: Tensor, grid: tuple[int, int], names: list[str]) -> None:
    """Write ids (B,N). ``.npy`` holds the ids as (B, rows, columns); the others hold ids (B,N), grid and names."""
    _check_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished{path.suffix}")
    ids = ids.cpu().contiguous()
    if path.suffix == ".npy":
        np.save(temporary, ids.unflatten(1, grid).numpy())
    elif path.suffix == ".json":
        temporary.write_text(json.dumps({"grid": list(grid), "names": names, "ids": ids.tolist()}))
    else:
        save_file({"ids": ids, "grid": torch.tensor(grid)}, temporary, metadata={"names": json.dumps(names)})
    temporary.replace(path)


def load_ids(path: Path) -> tuple[Tensor, tuple[int, int] | None]:
    """Ids (B,N) and the grid, None where the file does not say and the images are square."""
    _check_format(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    grid: tuple[int, int] | None = None
    try:
        if path.suffix == ".npy":
            ids = torch.from_numpy(np.load(path, allow_pickle=False))
            if ids.ndim == 3:
                grid, ids = (ids.shape[1], ids.shape[2]), ids.flatten(1)
        elif path.suffix == ".json":
            content = json.loads(path.read_text())
            ids = torch.tensor(content["ids"] if isinstance(content, dict) else content)
            if isinstance(content, dict) and "grid" in content:
                rows, columns = content["grid"]
                grid = (rows, columns)
        else:
            tensors = load_file(path)
            ids = tensors["ids"]
            if "grid" in tensors:
                rows, columns = tensors["grid"].tolist()
                grid = (rows, columns)
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} holds no token ids as `semhitok encode` writes them ({error})") from error
    except Exception as error:  # safetensors raises a class of its own
        raise ValueError(f"{path} holds no token ids as `semhitok encode` writes them ({error})") from error
    return (ids[None] if ids.ndim == 1 else ids), grid


def _check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: ids are read and written as {', '.join(FORMATS)}")
