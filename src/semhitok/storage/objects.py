"""Objects in a store (``s3://``, ``gs://``, ``hf://``, ``http://`` ...) through fsspec: sizes, ranges of bytes, small writes.

Credentials are found by the store's own client (environment, profiles, roles); nothing here takes or keeps any.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from semhitok.storage.byte_ranges import ByteRange
from semhitok.storage.patience import ReadSettings, patiently

Found = TypeVar("Found")

CONCURRENT = 16
"""Requests of one process at a time: a single one waits for the network, not for the disk."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
_filesystems: dict[tuple[int, str], Any] = {}


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Whether a location is an address in a store rather than a path."""
    return _SCHEME.match(os.fspath(location)) is not None


def address(location: str | os.PathLike[str]) -> str:
    """A location as text; an address that went through ``pathlib``, which merges slashes, is restored."""
    return _SCHEME.sub(r"\1://", os.fspath(location), count=1)


def object_sizes(folder: str, settings: ReadSettings) -> dict[str, int]:
    """Size in bytes of every object directly below an address, by name.

    Raises:
        OSError: it cannot be listed.
    """

    def ask(store: Any, path: str) -> list[dict[str, Any]]:
        return _bounded(store, "ls", settings, path, detail=True)

    found = [entry for entry in _try(folder, settings, ask) if entry["type"] == "file"]
    sizes = at_once([partial(_size, folder, entry, settings) for entry in found])
    return {PurePosixPath(entry["name"]).name: size for entry, size in zip(found, sizes, strict=True)}


def read_object(location: str, place: ByteRange | None, settings: ReadSettings) -> bytes:
    """A range of an object, fewer bytes if it ends earlier; all of it for None.

    Raises:
        OSError: it cannot be read, also not after repeated attempts.
    """
    if place is not None and not place.size:
        return b""
    ends = {} if place is None else {"start": place.offset, "end": place.offset + place.size}

    def ask(store: Any, path: str) -> bytes:
        try:
            found = bytes(_bounded(store, "cat_file", settings, path, **ends))
            if place is None or len(found) <= place.size:
                return found
            return found[
                place.offset : place.offset + place.size
            ]  # a server that does not know ranges sends everything
        except Exception as error:
            if ends and _is_beyond_the_end(error):
                return b""
            raise

    return _try(location, settings, ask)


def write_object(location: str, data: bytes, settings: ReadSettings) -> None:
    """Write a small object; it appears as a whole.

    Raises:
        OSError: it cannot be written.
    """

    def ask(store: Any, path: str) -> None:
        _bounded(store, "pipe_file", settings, path, data)

    _try(location, settings, ask)


def at_once(tasks: Sequence[Callable[[], Found]]) -> list[Found]:
    """The results of reads that run concurrently, in order; the first error is raised."""
    if len(tasks) < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(CONCURRENT, len(tasks))) as pool:
        return list(pool.map(lambda task: task(), tasks))


def _size(folder: str, entry: dict[str, Any], settings: ReadSettings) -> int:
    """Size in bytes of a listed object; listings of plain web servers do not tell."""
    if entry["size"] is not None:
        return int(entry["size"])
    place = f"{folder.rstrip('/')}/{PurePosixPath(entry['name']).name}"
    return int(_try(place, settings, lambda store, path: _bounded(store, "info", settings, path))["size"] or 0)


def _try(location: str, settings: ReadSettings, ask: Callable[[Any, str], Found]) -> Found:
    def attempt() -> Found:
        store = _filesystem(location)
        return ask(store, store._strip_protocol(location))

    return patiently(attempt, location, settings.patience)


def _bounded(store: Any, method: str, settings: ReadSettings, *arguments: Any, **options: Any) -> Any:
    """Call a method of a filesystem, which fails after ``settings.timeout``; those without asyncio have their own limits."""
    if getattr(store, "async_impl", False):
        from fsspec.asyn import sync

        return sync(store.loop, getattr(store, f"_{method}"), *arguments, timeout=settings.timeout, **options)
    return getattr(store, method)(*arguments, **options)


def _filesystem(location: str) -> Any:
    """One for each process: connections do not survive a fork."""
    scheme = location.partition("://")[0]
    if (os.getpid(), scheme) not in _filesystems:
        import fsspec

        _filesystems[os.getpid(), scheme] = fsspec.filesystem(scheme, use_listings_cache=False)
    return _filesystems[os.getpid(), scheme]


def _is_beyond_the_end(error: Exception) -> bool:
    """A range that begins after an object's last byte: HTTP status 416, which stores word differently."""
    return "416" in str(error) or "InvalidRange" in str(error) or "not satisfiable" in str(error).lower()
