"""The cache: where fetched weights, pictures and what is computed from them are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Folder for fetched weights and data: ``$SEMHITOK_CACHE``, or ``~/.cache/semhitok``."""
    return Path(os.environ.get("SEMHITOK_CACHE") or Path.home() / ".cache" / "semhitok")


def weights_path(name: str) -> Path:
    """Where ``semhitok data fetch weights`` puts the weights called ``name``; they need not be there."""
    return cache_directory() / "weights" / name
