"""The cache folder, which holds fetched weights, fetched pictures and what is computed from them."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Folder for fetched weights and data: ``$SEMHITOK_CACHE``, or ``~/.cache/semhitok``.

    A user without a home folder (a container with a foreign uid) gets that of ``/``, as container engines decide: nothing is
    found there, and only who wants to write is refused.
    """
    named = os.environ.get("SEMHITOK_CACHE")
    return Path(named) if named else _home() / ".cache" / "semhitok"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def weights_path(name: str, cache: Path | None = None) -> Path:
    """Where ``semhitok data fetch weights`` puts the weights called ``name``; they need not be there."""
    return (cache or cache_directory()) / "weights" / name


def require_weights(path: Path, need: str, otherwise: str = "") -> Path:
    """Return the path of fetched weights, or raise an error that says how to get them.

    Args:
        path: file or folder, usually a ``weights_path``.
        need: who needs which weights; the message begins with it ("the perceptual loss needs VGG16 weights").
        otherwise: what else would help; the message ends with it.

    Raises:
        ValueError: they were not fetched.
    """
    if not path.exists():
        raise ValueError(f"{need} at {path}: run `semhitok data fetch weights`{otherwise}")
    return path
