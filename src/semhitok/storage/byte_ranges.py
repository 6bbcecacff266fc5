"""Parts of files, read by name: the one place that knows where bytes lie.

Data sources hold locations, offsets and sizes, never open files: they can be pickled and read by several processes at
once. Locations are local paths; an object store is another case here, and nothing that reads through this changes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class ByteRange(NamedTuple):
    """``size`` bytes from ``offset`` on."""

    offset: int
    size: int


def read_range(location: Path, offset: int, size: int) -> bytes:
    """Bytes of a file, fewer where it ends before.

    Raises:
        OSError: the file cannot be read.
    """
    return read_ranges(location, [ByteRange(offset, size)])[0]


def read_ranges(location: Path, ranges: Sequence[ByteRange]) -> list[bytes]:
    """Several ranges of one file, which is opened once; see ``read_range``."""
    with open(location, "rb") as file:
        return [os.pread(file.fileno(), size, offset) for offset, size in ranges]
