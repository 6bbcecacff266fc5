"""Records of the language model in indexed webdataset tars, on local disk or in an object store (see ``indexed_shards``)."""

from __future__ import annotations

import os

from semhitok.data.block_order import BlockOrder
from semhitok.data.indexed_shards import IndexedShards, described_fields
from semhitok.data.record_parsing import given_ids, parse_record
from semhitok.data.records import Picture, Record, RecordError, RecordKind, whatever_is_wrong
from semhitok.data.sample import digest_of_lines
from semhitok.data.tar_index import main_image
from semhitok.storage.patience import ReadSettings


class IndexedRecords:
    """The described samples of indexed tars as records of one kind, a ``RecordSource`` with an order of its own.

    A record is read together with its image, by one range of bytes.

    Args:
        folder: a folder or an address such as ``s3://bucket/train``.
        kind: kind of the records.
        settings: how objects are read.

    Raises:
        ValueError, OSError: as for ``IndexedShards``.
    """

    def __init__(self, folder: str | os.PathLike[str], kind: RecordKind, settings: ReadSettings | None = None) -> None:
        self.kind: RecordKind = kind
        self.shards = IndexedShards(folder, "records", settings)

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return digest_of_lines([self.kind, self.shards.fingerprint])

    def __len__(self) -> int:
        return len(self.shards)

    def order(self, seed: int) -> BlockOrder:
        """See ``OwnOrder``."""
        return self.shards.order(seed)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return self.shards.name(index)

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        name = self.name(index)
        with whatever_is_wrong(name):
            key, contents = self.shards.contents(index)
            fields, wrong = described_fields(contents)
            if wrong and not fields:
                raise RecordError(f"{name}: has {wrong[0]}")
            if self.kind == "text":
                fields.setdefault("text", fields.get("caption"))
            suffix = main_image(contents)
            pictures = [] if suffix is None else [Picture(f"{name}: {key}{suffix}", data=contents[suffix])]
            pictures = [given_ids(fields, name)] if "image_ids" in fields else pictures
            return parse_record(fields, self.kind, name, pictures, choice)
