"""Parts of a file by offset and size."""

from __future__ import annotations

from pathlib import Path

import pytest

from semhitok.storage.byte_ranges import ByteRange, read_range, read_ranges


def test_ranges_come_in_the_order_asked_for(tmp_path: Path):
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    assert read_range(path, 10, 3) == bytes([10, 11, 12])
    asked = [ByteRange(50, 2), ByteRange(0, 1), ByteRange(50, 0), ByteRange(98, 9)]
    assert read_ranges(path, asked) == [bytes([50, 51]), b"\0", b"", bytes([98, 99])]
    with pytest.raises(OSError, match="absent"):
        read_range(tmp_path / "absent", 0, 1)
