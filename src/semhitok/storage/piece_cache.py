"""Pieces of objects on local disk, shared by the processes of a machine, within a limit."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from semhitok.storage.atomic import UNFINISHED
from semhitok.storage.byte_ranges import ByteRange
from semhitok.storage.objects import read_object
from semhitok.storage.patience import ReadSettings

PIECE = 4 * 2**20
"""Bytes of a piece: some forty photographs, so that a request's delay counts little."""
WAITING = 60.0  # seconds to wait for another process that fetches the same piece
ABANDONED = 3600.0  # seconds after which an unfinished piece belongs to a process that was killed
ADDED = "added"
"""File in the cache to which every process appends the size (8 bytes) of each piece that it stores; emptied when pieces are removed."""


class PieceCache:
    """Reads ranges of objects through files of one piece each; the least recently used go when the limit is reached.

    The limit holds for all processes of the machine together, which count what they add in one file. A disk that is full or cannot be written only makes it slower. An object is known by address and size: one that is replaced
    by another of the same size needs another address, or the folder to be emptied.

    Args:
        settings: folder and limit, timeout and patience.
    """

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings

    def read(self, location: str, size: int, place: ByteRange) -> bytes:
        """A range of an object of ``size`` bytes; fewer bytes if it ends earlier. Raises ``OSError``."""
        if not self.settings.cache_limit or not place.size:
            return read_object(location, place, self.settings)
        first, last = place.offset // PIECE, (place.offset + place.size - 1) // PIECE
        found = []
        for number in range(first, last + 1):
            piece = self._piece(location, size, number)
            begin = max(0, place.offset - number * PIECE)
            found.append(piece[begin : place.offset + place.size - number * PIECE])
        return b"".join(found)

    def _piece(self, location: str, size: int, number: int) -> bytes:
        wanted = ByteRange(number * PIECE, max(0, min(PIECE, size - number * PIECE)))
        name = hashlib.sha256(f"{location} {size} {number}".encode()).hexdigest()
        path = self.settings.cache / name[:2] / name
        found = _stored(path, wanted.size)
        if found is not None:
            return found
        with _alone(path):
            found = _stored(path, wanted.size)
            if found is None:
                found = read_object(location, wanted, self.settings)
                if len(found) == wanted.size:  # a shorter one may be whole the next time
                    self._store(path, found)
        return found

    def _store(self, path: Path, piece: bytes) -> None:
        unfinished = path.with_name(f"{UNFINISHED}{path.name[:16]}-{secrets.token_hex(8)}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_bytes(piece)  # not flushed: what a crash loses is fetched again
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
            if self._added(len(piece)) * 16 > self.settings.cache_limit:
                self._shrink()

    def _added(self, size: int) -> int:
        """Bytes that all processes have added since pieces were last removed, with ``size`` more."""
        with (self.settings.cache / ADDED).open("ab+") as file:  # small appends of several processes do not mix
            file.write(size.to_bytes(8, "little"))
            file.seek(0)
            found = file.read()
        return int(np.frombuffer(found[: len(found) // 8 * 8], "<u8").sum())

    def _shrink(self) -> None:
        os.truncate(self.settings.cache / ADDED, 0)
        files = sorted(stored_files(self.settings.cache), key=lambda entry: entry[1])
        total = sum(size for _, _, size in files)
        for path, used, size in files:
            unfinished = path.name.startswith(UNFINISHED)
            if total <= self.settings.cache_limit * 7 // 8 and not unfinished:
                break
            if unfinished and time.time() - used < ABANDONED:
                continue
            with suppress(OSError):
                path.unlink(missing_ok=True)  # another process may have removed it just now
                total -= size


def _stored(path: Path, size: int) -> bytes | None:
    try:
        found = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return found if len(found) == size else None


def stored_files(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """Path, time of the last use and size of every file in the cache; others may remove some meanwhile."""
    for path in folder.glob("??/*"):
        with suppress(OSError):
            found = path.stat()
            yield path, found.st_mtime, found.st_size


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep threads and processes from fetching the same piece at the same time, as far as that is quickly possible."""
    lock = path.with_name(f"{path.name}.lock")
    until = time.monotonic() + WAITING
    descriptor = None
    with suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    while time.monotonic() < until:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            with suppress(OSError):
                if time.time() - lock.stat().st_mtime > WAITING:  # of a process that was killed
                    lock.unlink()
            time.sleep(0.02)
        except OSError:
            break
        if path.exists():
            break
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
            with suppress(OSError):
                lock.unlink()
