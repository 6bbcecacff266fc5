"""webdataset tars, read at random."""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semhitok.data.images import IMAGE_SUFFIXES, ImageError, load_image
from semhitok.data.sample import METADATA_SUFFIXES, Sample, digest_of_lines, parse_metadata


class _Member(NamedTuple):
    """A file within a tar: its ending, and where its bytes are."""

    suffix: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """A sample within the shards."""

    shard: Path
    key: str
    image: _Member
    descriptions: tuple[_Member, ...]


class TarShards:
    """The samples of webdataset tars, through an index of their headers.

    Neighbouring members that share a path up to the first dot of the file name make one sample, as in webdataset;
    of several images in a sample the one with the fewest dots counts (``0001.jpg`` before ``0001.mask.png``), and
    members without an image are passed over. Opening reads every header once, about a second for 20,000 samples, and
    keeps the index in memory, about 1 kB per sample.

    Args:
        path: a tar file, a folder of ``*.tar``, a glob pattern (both sorted by name), or a list of tar files.

    Raises:
        ValueError: no tar files there, no images in them, or a compressed, truncated or corrupt tar.
    """

    def __init__(self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.shards = _find_shards(path)
        self._entries = [entry for shard in self.shards for entry in _index_shard(shard)]
        if not self._entries:
            raise ValueError(f"{self.shards[0]}: neither this nor the tars after it hold an image.")
        shard_lines = (f"{shard.name} {shard.stat().st_size}" for shard in self.shards)
        member_lines = (f"{entry.key} {entry.image.size}" for entry in self._entries)
        self._fingerprint = digest_of_lines([*shard_lines, *member_lines])

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return self._entries[index].key

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        shard, key, image_member, descriptions = self._entries[index]
        name = f"{shard}: {key}{image_member.suffix}"
        try:
            with open(shard, "rb") as file:
                data, *others = [os.pread(file.fileno(), m.size, m.offset) for m in (image_member, *descriptions)]
        except OSError as error:
            raise ImageError(f"{name}: cannot be read: {error.strerror or error}.") from error
        contents = {member.suffix: content for member, content in zip(descriptions, others, strict=True)}
        return Sample(image=load_image(data, name=name), key=key, metadata=parse_metadata(contents, name))


def _find_shards(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    if not isinstance(path, (str, os.PathLike)):
        shards = [Path(item) for item in path]
    elif Path(path).is_dir():
        shards = sorted(Path(path).glob("*.tar"))
    elif Path(path).exists():
        shards = [Path(path)]
    else:
        shards = [Path(name) for name in sorted(glob.glob(str(path)))]
    if not shards:
        raise ValueError(f"{path}: there are no tar files.")
    return shards


def _index_shard(shard: Path) -> Iterator[_Entry]:
    try:
        # Mode "r:" refuses compressed tars, in which nothing can be read at random.
        with tarfile.open(shard, "r:") as tar:
            members = [(*_split_name(m.name), m.offset_data, m.size) for m in tar if m.isreg()]
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{shard}: is not a readable, uncompressed tar file: {error}.") from error
    for key, group in groupby(members, key=lambda member: member[0]):
        sample = [_Member(*member[1:]) for member in group]
        images = [m for m in sample if PurePosixPath("x" + m.suffix).suffix.lower() in IMAGE_SUFFIXES]
        if images:
            image = min(images, key=lambda member: member.suffix.count("."))
            yield _Entry(shard, key, image, tuple(m for m in sample if m.suffix in METADATA_SUFFIXES))


def _split_name(name: str) -> tuple[str, str]:
    """``a/b.c.png`` is the sample ``a/b`` and the suffix ``.c.png``: the first dot of the file's own name divides."""
    folder, slash, file_name = name.rpartition("/")
    stem, dot, suffix = file_name.partition(".")
    return folder + slash + stem, dot + suffix
