"""Reads the files packed in a Qt binary resource (.rcc), the container of GCompris' photographs.

Layout (Qt's documented ``rcc -binary`` output, big endian): a header ``qres``, version, offsets of tree, data and
names; a tree of fixed-size nodes; names as counted UTF-16; data as counted bytes, each optionally compressed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

COMPRESSED_ZLIB = 1
DIRECTORY = 2
COMPRESSED_ZSTD = 4


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the resource, content) of every stored file; zstd-compressed ones (never images) are skipped.

    Raises:
        ValueError: the file is not a Qt binary resource.
    """
    content = path.read_bytes()
    if content[:4] != b"qres":
        raise ValueError(f"{path} is not a Qt binary resource: it starts with {content[:4]!r}, not b'qres'.")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_bytes = 22 if version >= 2 else 14  # version 2 added a modification time

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        position = tree + index * node_bytes
        name_offset, flags = struct.unpack_from(">IH", content, position)
        name = ""
        if index:  # the root has no name
            (length,) = struct.unpack_from(">H", content, names + name_offset)
            start = names + name_offset + 6  # two bytes of length, four of hash
            name = content[start : start + 2 * length].decode("utf-16-be")
        full = f"{folder}/{name}" if folder else name
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">2I", content, position + 6)
            for child in range(first, first + count):
                yield from walk(child, full)
        elif not flags & COMPRESSED_ZSTD:
            (offset,) = struct.unpack_from(">I", content, position + 10)
            (length,) = struct.unpack_from(">I", content, data + offset)
            stored = content[data + offset + 4 : data + offset + 4 + length]
            yield full, zlib.decompress(stored[4:]) if flags & COMPRESSED_ZLIB else stored

    yield from walk(0, "")
