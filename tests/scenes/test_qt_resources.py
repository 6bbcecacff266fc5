"""Reading Qt binary resources: against a file laid out by hand from the format's description."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from semhitok.scenes.qt_resources import read_resources


def _name(text: str) -> bytes:
    return struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")


def _resource(version: int) -> bytes:
    """Root > folder 'a' > plain file 'p.txt' and zlib file 'z.txt'."""
    plain, packed = b"plain", zlib.compress(b"packed" * 50)
    data = struct.pack(">I", len(plain)) + plain
    packed_at = len(data)
    data += struct.pack(">II", len(packed) + 4, 300) + packed  # the unpacked size precedes a compressed file
    names, offsets = b"", []
    for text in ("a", "p.txt", "z.txt"):
        offsets.append(len(names))
        names += _name(text)
    time = b"\0" * 8 if version >= 2 else b""
    tree = struct.pack(">IHII", 0, 2, 1, 1) + time
    tree += struct.pack(">IHII", offsets[0], 2, 2, 2) + time
    tree += struct.pack(">IHHHI", offsets[1], 0, 0, 1, 0) + time
    tree += struct.pack(">IHHHI", offsets[2], 1, 0, 1, packed_at) + time
    header = 20
    return (
        b"qres"
        + struct.pack(">4I", version, header, header + len(tree), header + len(tree) + len(data))
        + tree
        + data
        + names
    )


@pytest.mark.parametrize("version", [1, 2])
def test_reads_names_and_contents(tmp_path: Path, version: int) -> None:
    path = tmp_path / "x.rcc"
    path.write_bytes(_resource(version))
    assert dict(read_resources(path)) == {"a/p.txt": b"plain", "a/z.txt": b"packed" * 50}


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.rcc"
    path.write_bytes(b"not a resource at all")
    with pytest.raises(ValueError, match="not a Qt binary resource"):
        list(read_resources(path))
