"""Sources of records: webdataset tars, ``.jsonl`` files and ``.json`` arrays, with random access.

Sources hold names and offsets but no open files, so they can be pickled and read by several processes at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from semhitok.data.indexed_records import IndexedRecords
from semhitok.data.json_records import JsonLines, check_length
from semhitok.data.record_parsing import given_ids, parse_record
from semhitok.data.records import Picture, Record, RecordError, RecordKind, whatever_is_wrong
from semhitok.data.sample import METADATA_SUFFIXES, digest_of_lines, parse_metadata
from semhitok.data.shard_index import has_table
from semhitok.data.tar_index import index_tar, main_image
from semhitok.data.token_records import TokenRecords, holds_tokens
from semhitok.storage.byte_ranges import ByteRange, read_ranges
from semhitok.storage.objects import address, is_remote


class RecordSource(Protocol):
    """A finite, indexable collection of records."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of names, order, sizes and kind: equal fingerprints mean the same data."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The record's name, without reading it."""
        ...

    def read(self, index: int, choice: int) -> Record:
        """Read a record without its images; ``choice`` as in ``parse_record``. Raises ``RecordError``."""
        ...


class RecordTars:
    """The samples of webdataset tars: ``KEY.json`` or ``KEY.txt`` (a caption or text), and an image such as ``KEY.webp``.

    Samples are those of webdataset (see ``index_tar``). Opening reads every header.

    Args:
        shards: tar files, or folders of them.
        kind: kind of the records.

    Raises:
        ValueError: there are no tar files, none has a sample, or one cannot be read.
    """

    def __init__(self, shards: Sequence[str | os.PathLike[str]], kind: RecordKind) -> None:
        self.kind: RecordKind = kind
        paths = [tar for path in map(Path, shards) for tar in (sorted(path.glob("*.tar")) if path.is_dir() else [path])]
        if not paths:
            raise ValueError(f"{', '.join(map(str, shards))}: there are no tar files.")
        self._samples = [sample for path in paths for sample in _described_samples(path)]
        if not self._samples:
            raise ValueError(f"{paths[0]}: neither this nor the tars after it hold a .json or .txt file.")
        lines = (
            f"{shard.name} {key} {[(suffix, tuple(place)) for suffix, place in sorted(places.items())]}"
            for shard, key, places in self._samples
        )
        self.images_fingerprint = digest_of_lines(lines)
        """As ``fingerprint``, but independent of the kind."""
        self._fingerprint = digest_of_lines([kind, self.images_fingerprint])

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return self._samples[index][1]

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        shard, name, places = self._samples[index]
        described = {suffix: place for suffix, place in places.items() if suffix in METADATA_SUFFIXES}
        with whatever_is_wrong(name):
            check_length(max(place.size for place in described.values()), name)
            contents = dict(zip(described, read_ranges(shard, list(described.values())), strict=True))
            fields, wrong = parse_metadata(contents)
            if wrong and not fields:
                raise RecordError(f"{name}: has {wrong[0]}")
            if self.kind == "text":
                fields.setdefault("text", fields.get("caption"))
            picture = self._picture(index)
            pictures = [given_ids(fields, name)] if "image_ids" in fields else [] if picture is None else [picture]
            return parse_record(fields, self.kind, name, pictures, choice)

    def picture(self, index: int) -> Picture:
        """The sample's image, without reading its description.

        Raises:
            RecordError: the sample has no image.
        """
        found = self._picture(index)
        if found is None:
            raise RecordError(f"{self.name(index)}: has no image")
        return found

    def _picture(self, index: int) -> Picture | None:
        shard, key, places = self._samples[index]
        suffix = main_image(places)
        return None if suffix is None else Picture(f"{shard.name}: {key}{suffix}", shard, *places[suffix])


class Pretokenized:
    """The records of tars with precomputed ids in place of images.

    Args:
        source: the records.
        ids: (len(source),N) or (len(source),N,C) integers; a row that starts with -1 is an image that could not be read.
        tokenizer: fingerprint of the tokenizer that produced them.
    """

    def __init__(self, source: RecordTars, ids: np.ndarray, tokenizer: str) -> None:
        if len(ids) != len(source):
            raise ValueError(f"ids of {len(source)} images are needed, got {len(ids)}")
        self.source, self.ids, self.tokenizer = source, ids, tokenizer

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return digest_of_lines([self.source.fingerprint, self.tokenizer])

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return self.source.name(index)

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        record = self.source.read(index, choice)
        if not record.pictures:
            return record
        ids = np.asarray(self.ids[index], dtype=np.int64)
        if ids.flat[0] < 0:
            raise RecordError(f"{record.name}: its image could not be read")
        picture = Picture(record.name, ids=ids, tokenizer=self.tokenizer)
        return Record(record.kind, record.name, record.text, record.turns, (picture,))


class Chosen:
    """A subset of a source's records.

    Args:
        source: any source.
        indices: indices into it.
    """

    def __init__(self, source: RecordSource, indices: Sequence[int] | np.ndarray) -> None:
        self.source, self.indices = source, np.asarray(indices, dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return digest_of_lines([self.source.fingerprint, *map(str, self.indices)])

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return self.source.name(int(self.indices[index]))

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        return self.source.read(int(self.indices[index]), choice)


def open_records(
    path: str | os.PathLike[str], kind: RecordKind, *, allow_outside: bool = False
) -> JsonLines | RecordTars | TokenRecords | IndexedRecords:
    """Open the records of a ``.jsonl`` file, a ``.json`` array, a tar or a folder of tars, or token files (parquet, as
    ``semhitok pretokenize`` writes them), or indexed tars, also in an object store; ``allow_outside`` as for ``JsonLines``.

    Raises:
        ValueError: the path is none of these.
    """
    if is_remote(path):
        return IndexedRecords(address(path), kind)
    path = Path(path)
    if has_table(path):
        return IndexedRecords(path, kind)
    if holds_tokens(path):
        return TokenRecords(path, kind)
    if path.suffix in (".jsonl", ".json"):
        return JsonLines(path, kind, allow_outside=allow_outside)
    if path.is_dir() or (path.suffix == ".tar" and path.is_file()):
        return RecordTars([path], kind)
    raise ValueError(
        f"{path}: records are read from a .jsonl file, a .json array, a .tar file or a folder of .tar files, or from the "
        ".parquet files of `semhitok pretokenize`."
    )


_Sample = tuple[Path, str, dict[str, ByteRange]]


def _described_samples(shard: Path) -> Iterator[_Sample]:
    """(shard, key, byte range by suffix) of every sample with a description."""
    for key, members in index_tar(shard):
        places = {member.suffix: member.place for member in members}
        if set(places) & set(METADATA_SUFFIXES):
            yield shard, key, places
