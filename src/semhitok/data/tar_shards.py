"""Images in webdataset tars, with random access."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from semhitok.data.images import ImageError, load_image
from semhitok.data.sample import METADATA_SUFFIXES, Sample, digest_of_lines, parse_metadata
from semhitok.data.tar_index import Member, index_tar, main_image
from semhitok.storage.byte_ranges import read_ranges


class _Entry(NamedTuple):
    """A sample within the shards."""

    shard: Path
    key: str
    image: Member
    descriptions: tuple[Member, ...]


class TarShards:
    """The samples of webdataset tars, with an index of their headers.

    Samples are those of webdataset (see ``index_tar``); those without an image are skipped. Opening reads every header
    once, which takes about a second for 20,000 samples, and keeps about 1 kB per sample in memory.

    Args:
        path: a tar file, a folder of ``*.tar``, a glob pattern (both sorted by name), or a list of tar files.

    Raises:
        ValueError: there are no tar files or no images in them, or a tar is compressed, truncated or corrupt.
    """

    def __init__(self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.shards = _find_shards(path)
        self._entries = [entry for shard in self.shards for entry in _index_shard(shard)]
        if not self._entries:
            raise ValueError(f"{self.shards[0]}: neither this nor the tars after it hold an image.")
        shard_lines = (f"{shard.name} {shard.stat().st_size}" for shard in self.shards)
        member_lines = (f"{entry.key} {entry.image.place.size}" for entry in self._entries)
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
            data, *others = read_ranges(shard, [member.place for member in (image_member, *descriptions)])
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
    for key, members in index_tar(shard):
        suffix = main_image(member.suffix for member in members)
        if suffix is not None:
            image = next(member for member in members if member.suffix == suffix)
            yield _Entry(shard, key, image, tuple(m for m in members if m.suffix in METADATA_SUFFIXES))
