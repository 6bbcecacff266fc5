"""Loading checkpoints strictly: shipped names, the right class, every key accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent.parent / "checkpoints"


def builtin_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / "config.json").exists())


def builtin_checkpoint(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a shipped checkpoint, or ``name`` itself if it is a folder or a hub id."""
    if isinstance(name, str) and name in builtin_names() and not Path(name).exists():
        return SHIPPED / name
    return name


def check_model_type(path: str | os.PathLike[str], expected: str) -> None:
    """Refuse a local folder that is no checkpoint or holds another class of model."""
    folder = Path(path)
    if not folder.exists():
        # A hub id has exactly one slash and no file suffix; anything else is a mistyped path.
        if os.fspath(path).count("/") != 1 or os.fspath(path).startswith((".", "/", "~")):
            names = ", ".join(builtin_names()) or "none"
            raise FileNotFoundError(f"no checkpoint at {path}: expected a folder, a hub id or a shipped name ({names})")
        return
    config = folder / "config.json"
    if not config.exists():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no config.json")
    found = json.loads(config.read_text()).get("model_type")
    if found != expected:
        raise ValueError(f"{folder} holds a model of type {found!r}, expected {expected!r}")


def check_loading(path: str | os.PathLike[str], info: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` naming the keys that were missing, unexpected or of another shape."""
    problems = {
        "missing keys": sorted(info["missing_keys"]),
        "unexpected keys": sorted(info["unexpected_keys"]),
        "keys of another shape": sorted(str(entry[0]) for entry in info["mismatched_keys"]),
    }
    found = [
        f"{kind}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}" for kind, keys in problems.items() if keys
    ]
    if found:
        raise ValueError(f"the weights at {path} do not fit the model: {'; '.join(found)}")
