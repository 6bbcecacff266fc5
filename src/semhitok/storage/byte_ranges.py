"""Parts of files by location, offset and size: the only place that knows how stored bytes are reached.

Data sources keep locations, offsets and sizes, never open files, so they can be pickled and read by several processes at
once. Locations are local paths today; an object store would be added here, without a change in any caller.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 512 * 1024 * 1024
"""More than this is not read at once: no picture and no record is as large, but a damaged or hostile header may say so."""


def lies_in(location: Path, folder: Path) -> bool:
    """Whether a file is in a folder or below it, wherever links lead; it need not exist.

    Raises:
        OSError, ValueError: no file can have this name.
    """
    return Path(os.path.realpath(location)).is_relative_to(os.path.realpath(folder))


class ByteRange(NamedTuple):
    """``size`` bytes starting at ``offset``."""

    offset: int
    size: int


def read_range(location: Path, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer than ``size`` if the file ends earlier.

    Raises:
        OSError: the file cannot be read, or the range is not one of 0 to ``MAX_BYTES`` bytes.
    """
    return read_ranges(location, [ByteRange(offset, size)])[0]


def read_ranges(location: Path, ranges: Sequence[ByteRange]) -> list[bytes]:
    """Several ranges of one file, which is opened only once; see ``read_range``."""
    for offset, size in ranges:
        if not 0 <= size <= MAX_BYTES or not 0 <= offset < 2**63:
            raise OSError(errno.EFBIG, f"{size:,} bytes at {offset:,} are not read, up to {MAX_BYTES:,} are accepted")
    with open(location, "rb") as file:
        return [os.pread(file.fileno(), size, offset) for offset, size in ranges]


def read_file(location: Path) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file (a pipe would block, a device may never end), or has more than
            ``MAX_BYTES``.
        ValueError: no file can have this name.
    """
    with open(location, "rb", opener=_open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if found.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, up to {MAX_BYTES:,} are accepted")
        return file.read(MAX_BYTES)


def _open_without_waiting(location: str, flags: int) -> int:
    """A pipe would be waited for otherwise, until something writes to it."""
    return os.open(location, flags | getattr(os, "O_NONBLOCK", 0))
