"""Reads that fail now and then, and how long they are repeated."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from semhitok.storage.cache import cache_directory

Found = TypeVar("Found")

FIRST_DELAY, LONGEST_DELAY = 0.2, 15.0  # seconds
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, NotImplementedError, ValueError)
"""Errors that another attempt would meet again. Those of missing credentials have no class in common."""


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        found = float(text or default)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise ValueError(f"{name} must be a number of at least 0, got {text!r}.")
    return found


def _cache_folder() -> Path:
    named = os.environ.get("SEMHITOK_STREAM_CACHE")
    return Path(named) if named else cache_directory() / "stream"


@dataclass(frozen=True)
class ReadSettings:
    """How objects are read; the defaults come from the environment, so that every process of a job has the same.

    Attributes:
        timeout: seconds after which a request counts as failed ($SEMHITOK_READ_TIMEOUT, 30).
        patience: seconds for which a failing read is repeated, with growing pauses ($SEMHITOK_READ_PATIENCE, 600).
        cache: folder for pieces of objects on local disk ($SEMHITOK_STREAM_CACHE, ``stream`` in the cache folder).
        cache_limit: bytes that it may hold ($SEMHITOK_STREAM_CACHE_GB, 20 GB); 0 reads every sample from the store.
    """

    timeout: float = field(default_factory=lambda: _number("SEMHITOK_READ_TIMEOUT", 30))
    patience: float = field(default_factory=lambda: _number("SEMHITOK_READ_PATIENCE", 600))
    cache: Path = field(default_factory=_cache_folder)
    cache_limit: int = field(default_factory=lambda: int(1e9 * _number("SEMHITOK_STREAM_CACHE_GB", 20)))


def patiently(read: Callable[[], Found], name: str, patience: float) -> Found:
    """The result of ``read``, which is repeated with growing pauses while it fails in a way that may pass.

    Raises:
        OSError: it fails for good, or did so for ``patience`` seconds; one sentence that starts with ``name``.
    """
    begun, delay = time.monotonic(), FIRST_DELAY
    while True:
        try:
            return read()
        except Exception as error:  # each store's client has its own errors
            if _is_permanent(error):
                raise OSError(_sentence(name, error)) from error
            if time.monotonic() - begun + delay > patience:
                raise OSError(f"{name}: cannot be read for {patience:g} seconds: {_reason(error)}.") from error
        # Readers that failed together must not come back together.
        time.sleep(delay * random.uniform(0.5, 1.5))
        delay = min(2 * delay, LONGEST_DELAY)


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, PERMANENT) or "Credentials" in type(error).__name__


def _sentence(name: str, error: Exception) -> str:
    kind = type(error).__name__
    if "Credentials" in kind:
        return (
            f"{name}: no credentials were found; they are taken from where the store's own tools look for them, such as "
            "AWS_PROFILE or the role of the machine."
        )
    if isinstance(error, FileNotFoundError):
        return f"{name}: there is no such bucket, folder or object."
    if isinstance(error, PermissionError):
        return f"{name}: access is denied with the present credentials."
    if isinstance(error, ImportError):
        return f"{name}: this kind of address needs another package ({_reason(error)}): pip install semhitok[storage]."
    return f"{name}: cannot be read: {_reason(error)}."


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
