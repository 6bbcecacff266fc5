"""Index of an uncompressed webdataset tar: its samples and the byte ranges of their files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semhitok.data.images import IMAGE_SUFFIXES
from semhitok.storage.byte_ranges import ByteRange


class Member(NamedTuple):
    """A file within a tar: its suffix and its byte range."""

    suffix: str
    place: ByteRange


def index_tar(shard: Path) -> Iterator[tuple[str, list[Member]]]:
    """Key and members of each sample, in the order of the tar; every header is read once.

    Neighbouring members that share a path up to the first dot of the file name make one sample, as in webdataset.

    Raises:
        ValueError: the file is missing, compressed, truncated, corrupt or concatenated from several tars.
    """
    for key, group in groupby(_read_headers(shard), key=lambda member: member[0]):
        yield key, [Member(suffix, place) for _, suffix, place, _ in group]


def sample_spans(shard: Path) -> Iterator[tuple[ByteRange, list[str]]]:
    """The bytes that a sample's members take, headers included, and their suffixes; order and errors as in ``index_tar``."""
    for _, group in groupby(_read_headers(shard), key=lambda member: member[0]):
        members = list(group)
        begin, last = members[0][3], members[-1][2]
        end = -(-(last.offset + last.size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        yield ByteRange(begin, end - begin), [suffix for _, suffix, _, _ in members]


def members_of_span(span: bytes) -> tuple[str, dict[str, bytes]]:
    """Key and content by suffix of the members in the bytes of ``sample_spans``.

    Raises:
        ValueError: these bytes are not those of one sample.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(span), mode="r:") as tar:
            found = [
                (*_split_name(m.name), span[m.offset_data : m.offset_data + m.size], m.size) for m in tar if m.isreg()
            ]
    except tarfile.TarError as error:
        raise ValueError(f"is damaged: {error}") from error
    if len({key for key, *_ in found}) != 1 or any(len(content) != size for *_, content, size in found):
        raise ValueError("is damaged, or the index does not fit")
    return found[0][0], {suffix: content for _, suffix, content, _ in found}


def _read_headers(shard: Path) -> list[tuple[str, str, ByteRange, int]]:
    """Key, suffix, bytes of the content, and offset of the first header of every regular member."""
    if not shard.is_file():
        raise ValueError(f"{shard}: there is no such file, or no regular one.")  # a pipe would block
    try:
        # Mode "r:" rejects compressed tars, which do not allow random access.
        with tarfile.open(shard, "r:") as tar:
            members = [(*_split_name(m.name), ByteRange(m.offset_data, m.size), m.offset) for m in tar if m.isreg()]
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{shard}: is not a readable, uncompressed tar file: {error}.") from error
    _check_end(shard, end)
    return members


def _check_end(shard: Path, end: int) -> None:
    """``tarfile`` takes any header that it cannot read for the end, and would silently lose all samples from there on."""
    with shard.open("rb") as file:
        file.seek(end)
        header = file.read(tarfile.BLOCKSIZE)
        if len(header) < tarfile.BLOCKSIZE:
            raise ValueError(
                f"{shard}: is truncated at byte {end}, where a header or the end mark of a tar file is missing."
            )
        if any(header):
            raise ValueError(f"{shard}: the header at byte {end} is corrupt; samples from there on would be lost.")
        while block := file.read(2**20):
            if block.strip(b"\0"):
                raise ValueError(
                    f"{shard}: has data after its end mark at byte {end}; several tars in one file are not read."
                )


def main_image(suffixes: Iterable[str]) -> str | None:
    """The image suffix with the fewest dots (``.jpg`` rather than ``.mask.png``), or None if no suffix is an image's."""
    return min(filter(is_image, suffixes), key=lambda suffix: suffix.count("."), default=None)


def is_image(suffix: str) -> bool:
    """Whether a member of this suffix is an image, as far as its name tells."""
    return PurePosixPath("x" + suffix).suffix.lower() in IMAGE_SUFFIXES


def _split_name(name: str) -> tuple[str, str]:
    """Split ``a/b.c.png`` into sample ``a/b`` and suffix ``.c.png`` at the first dot of the file name."""
    folder, slash, file_name = name.rpartition("/")
    stem, dot, suffix = file_name.partition(".")
    return folder + slash + stem, dot + suffix
