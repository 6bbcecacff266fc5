"""One index of tars for images and records: what belongs to which sample, and digests that earlier versions gave."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from semhitok.data.record_sources import RecordTars
from semhitok.data.tar_index import index_tar, main_image
from semhitok.data.tar_shards import TarShards
from semhitok.storage.byte_ranges import read_range


def picture(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A tar with folders, dots in folder names, several images, files that occur twice, and words alone."""
    members = [
        ("a", None),
        ("a/0.json", b'{"caption":"one"}'),
        ("a/0.mask.bmp", picture(1)),
        ("a/0.bmp", picture(2)),
        ("a/1.txt", b"first"),
        ("a/1.txt", b"again, longer"),
        ("a/1.bmp", picture(3)),
        ("a/1.bmp", picture(4)),
        ("b.x/2.bmp", picture(5)),
        ("words.txt", b"none"),
        ("b.x/2.cls", b"7"),
        ("a/0.cls", b"3"),
        ("a/3.y.json", b"{}"),
        ("a/3.jpeg2", b""),
    ]
    path = tmp_path / "odd-00.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return path


def test_every_file_is_found_where_it_lies(odd: Path):
    with tarfile.open(odd) as tar:
        expected = [(m.name, (tar.extractfile(m) or io.BytesIO()).read()) for m in tar if m.isreg()]
    found = [
        (key + member.suffix, read_range(odd, *member.place)) for key, members in index_tar(odd) for member in members
    ]
    assert found == expected
    assert [key for key, _ in index_tar(odd)] == ["a/0", "a/1", "b.x/2", "words", "b.x/2", "a/0", "a/3"]


def test_the_image_with_the_fewest_dots_counts():
    assert main_image([".json", ".mask.png", ".WEBP", ".jpg"]) == ".WEBP"
    assert main_image([".json", ".jpeg2"]) is None


def test_orders_and_digests_are_those_of_earlier_versions(odd: Path):
    images, records = TarShards(odd), RecordTars([odd], "caption")
    assert [images.key(index) for index in range(len(images))] == ["a/0", "a/1", "b.x/2"]
    assert [records.name(index) for index in range(len(records))] == ["a/0", "a/1", "words", "b.x/2", "a/0"]
    assert images.fingerprint == "6ccadce158a3630342f057ca52fe8017da66e2abf2f7de1720b471caa71daf03"
    assert records.fingerprint == "86b0139d3ea523e4528affe8ddd19265c595068cd6e961d59c8d3af9510be493"
    assert records.images_fingerprint == "e448e886e904e1c5a9fd0e1b4b4c7c77fd4aa7846c6d789aba55ab8119a47097"
    assert [images.load(index).image.getpixel((0, 0)) for index in range(3)] == [(2, 0, 0), (3, 0, 0), (5, 0, 0)]
    assert images.load(1).metadata == {"caption": "again, longer"}
    assert records.read(1, 0).text == "again, longer"
    for copy in (records, pickle.loads(pickle.dumps(records))):
        assert [copy.picture(index).load().getpixel((0, 0)) for index in range(2)] == [(2, 0, 0), (4, 0, 0)]


@pytest.mark.parametrize("member", [1, 5, 198])
def test_a_flipped_bit_in_any_header_is_an_error(tmp_path: Path, member: int) -> None:
    """``tarfile`` alone stops there and gives the members before it."""
    shard, headers = _tar_of_200(tmp_path)
    data = bytearray(shard.read_bytes())
    data[headers[member] + 3] ^= 4
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=rf"the header at byte {headers[member]} is corrupt"):
        list(index_tar(shard))


def test_an_end_that_is_missing_and_one_too_many(tmp_path: Path) -> None:
    shard, headers = _tar_of_200(tmp_path)
    data = shard.read_bytes()
    assert len(list(index_tar(shard))) == 200
    for size in (headers[7], headers[7] + 100):
        shard.write_bytes(data[:size])
        with pytest.raises(ValueError, match=rf"is truncated at byte {headers[7]}"):
            list(index_tar(shard))
    shard.write_bytes(data + data)
    with pytest.raises(ValueError, match="has data after its end mark"):
        list(index_tar(shard))


def _tar_of_200(folder: Path) -> tuple[Path, list[int]]:
    shard = folder / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for index in range(200):
            member = tarfile.TarInfo(f"{index:03d}.png")
            member.size = 10
            tar.addfile(member, io.BytesIO(bytes(10)))
    with tarfile.open(shard) as tar:
        return shard, [member.offset for member in tar]
