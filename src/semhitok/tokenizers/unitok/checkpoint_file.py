"""Reading published weights without executing code from the file."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def read_checkpoint(path: Path) -> Any:
    """The content of a ``.safetensors`` file or of one written by ``torch.save``; tensors are memory-mapped if possible.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another kind, or would execute code, which is refused.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only files of torch >= 1.6 are archives, which can be memory-mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        what = _refused(str(error))
        raise ValueError(
            f"{path} {what}; only files that hold nothing but tensors and plain values are read"
        ) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # an unpickler may raise anything on garbage
        raise ValueError(f"{path} is damaged or not a file of weights: {_first_sentence(error)}") from error


def tensors_only(state: Any, what: str) -> dict[str, Tensor]:
    """``state`` as a dictionary of tensors by name.

    Raises:
        ValueError: it is anything else; the message starts with ``what``.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{what} is not a dictionary of tensors by name")
    others = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"{what} holds something else than tensors: {listed(others)}")
    return dict(state)


def listed(names: Iterable[str]) -> str:
    """The first names, and the number of others."""
    names = list(names)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _refused(message: str) -> str:
    """What the file tried to load, which torch's message names."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    return f"asks for {found[1]} while it is read" if found else "is not a file of weights"


def _first_sentence(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0][:160].rstrip(".")
