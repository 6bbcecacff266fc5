"""Images in webdataset tars, with random access."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from semhitok.data.images import ImageError, load_image
from semhitok.data.sample import METADATA_SUFFIXES, Sample, digest_of_lines, usable_metadata
from semhitok.data.tar_index import Member, index_tar, is_image, main_image
from semhitok.storage.byte_ranges import read_ranges


class _Entry(NamedTuple):
    """A sample within the shards."""

    shard: Path
    key: str
    image: Member
    descriptions: tuple[Member, ...]


class TarShards:
    """The samples of webdataset tars, with an index of their headers.

    Samples are those of webdataset (see ``index_tar``); those without an image are skipped. Several images that compete for
    being a sample's, such as ``frame.0001.jpg`` and ``frame.0002.jpg``, whose key is ``frame`` for both, cause a warning. Opening reads every header
    once, which takes about a second for 20,000 samples, and keeps about 1 kB per sample in memory.

    Args:
        path: a tar file, a folder of ``*.tar``, a glob pattern (both sorted by name), a pattern such as ``{0000..0003}.tar``, or a
            list of tar files.
        draft_side: see ``load_image``.

    Raises:
        ValueError: there are no tar files or no images in them, or a tar is compressed, truncated or corrupt.
    """

    def __init__(
        self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, draft_side: int | None = None
    ) -> None:
        self.shards, self.draft_side = find_tars(path), draft_side
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
        image = load_image(data, name=name, draft_side=self.draft_side)
        return Sample(image=image, key=key, metadata=usable_metadata(contents, name, str(shard)))


def find_tars(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The tars that a path or a pattern names, as described at ``TarShards``; raises a ``ValueError`` if there are none."""
    if not isinstance(path, (str, os.PathLike)):
        shards = [Path(item) for item in path]
    elif Path(path).is_dir():
        shards = sorted(Path(path).glob("*.tar"))
    elif Path(path).exists():
        shards = [Path(path)]
    elif numbered := _numbered(str(path)):
        shards = numbered
    else:
        shards = [Path(name) for name in sorted(glob.glob(str(path)))]
    if not shards:
        raise ValueError(f"{path}: there are no tar files.")
    return shards


def _numbered(pattern: str) -> list[Path]:
    """The files of a pattern with a range of numbers in braces, as webdataset writes it; none for other names."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return []
    first, last = found.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    names = [pattern[: found.start()] + number + pattern[found.end() :] for number in numbers]
    return [path for name in names for path in (_numbered(name) or [Path(name)])]


def _index_shard(shard: Path) -> Iterator[_Entry]:
    told = False
    for key, members in index_tar(shard):
        suffix = main_image(member.suffix for member in members)
        if suffix is None:
            continue
        if not told:
            told = _tell_rivals(f"{shard}: sample {key}", members, suffix)
        image = next(member for member in members if member.suffix == suffix)
        yield _Entry(shard, key, image, tuple(m for m in members if m.suffix in METADATA_SUFFIXES))


def _tell_rivals(sample: str, members: Sequence[Member], chosen: str) -> bool:
    """Warn if several images compete for being the sample's; returns whether they do."""
    rivals = [m.suffix for m in members if is_image(m.suffix) and m.suffix.count(".") == chosen.count(".")]
    if len(rivals) > 1:
        warnings.warn(
            f"{sample} has several images ({', '.join(rivals[:3])}{', ...' * (len(rivals) > 3)}), of which only the first is "
            "read, and others may, too: a key ends at the first dot of a file's name.",
            stacklevel=5,
        )
    return len(rivals) > 1
