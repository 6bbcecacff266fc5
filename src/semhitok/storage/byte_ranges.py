"""Parts of files by location, offset and size: the only place that knows how stored bytes are reached.

Data sources keep locations, offsets and sizes, never open files, so they can be pickled and read by several processes at
once. Locations are local paths today; an object store would be added here, without a change in any caller.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class ByteRange(NamedTuple):
    """``size`` bytes starting at ``offset``."""

    offset: int
    size: int


def read_range(location: Path, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer than ``size`` if the file ends earlier.

    Raises:
        OSError: the file cannot be read.
    """
    return read_ranges(location, [ByteRange(offset, size)])[0]


def read_ranges(location: Path, ranges: Sequence[ByteRange]) -> list[bytes]:
    """Several ranges of one file, which is opened only once; see ``read_range``."""
    with open(location, "rb") as file:
        return [os.pread(file.fileno(), size, offset) for offset, size in ranges]
