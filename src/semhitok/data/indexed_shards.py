"""Webdataset tars with an index (see ``shard_index``), on local disk or in an object store, as images and as records.

Opening reads a table of shards. The index of a shard is read when the first of its samples is, and a sample by one range of bytes. Their
order is a ``BlockOrder`` of runs of ``BLOCK`` samples: a window lies in few places, whose pieces are kept on local disk meanwhile.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semhitok.data.block_order import BlockOrder
from semhitok.data.images import ImageError, load_image
from semhitok.data.sample import METADATA_SUFFIXES, Sample, digest_of_lines, parse_metadata, usable_metadata
from semhitok.data.shard_index import HOLDS, ShardEntry, Wanted, join, read_index, read_table, sizes_of_tars
from semhitok.data.tar_index import main_image, members_of_span
from semhitok.storage.byte_ranges import ByteRange, read_range
from semhitok.storage.objects import address, is_remote
from semhitok.storage.patience import ReadSettings
from semhitok.storage.piece_cache import PieceCache

BLOCK = 128
"""Samples of a block."""
WINDOW = 64
"""Blocks that are shuffled together: 8,192 samples."""
KEPT_INDEXES = 1024
NAMED = 5  # shards in a message


class IndexedShards:
    """The samples of the tars of one folder or address that have what is wanted, by number.

    Args:
        folder: a folder or an address such as ``s3://bucket/train``.
        wanted: samples with an image, or with a description.
        settings: how objects are read.

    Raises:
        ValueError: there is no table, it lists nothing that is wanted, or tars are missing or not those of the table.
        OSError: the store cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], wanted: Wanted, settings: ReadSettings | None = None) -> None:
        self.folder = address(folder)
        self.wanted: Wanted = wanted
        self.settings = settings or ReadSettings()
        self.entries = read_table(self.folder, self.settings)
        sizes = sizes_of_tars(self.folder, self.settings)
        _check_sizes(self.folder, self.entries, sizes)
        self._sizes = [sizes[entry.name] for entry in self.entries]  # of a truncated tar less than its entry says
        self.counts = np.array([entry.count(wanted) for entry in self.entries], dtype=np.int64)
        self.ends = np.cumsum(self.counts)
        if not self.counts.sum():
            raise ValueError(f"{self.folder}: its tars hold no {wanted}.")
        self._start()

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes and numbers of samples."""
        lines = (f"{entry.name} {entry.size} {entry.count(self.wanted)}" for entry in self.entries)
        return digest_of_lines([self.wanted, *lines])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def order(self, seed: int) -> BlockOrder:
        """See ``OwnOrder``."""
        return BlockOrder(block_sizes(self.counts), seed, WINDOW)

    def name(self, index: int) -> str:
        """Shard and number of a sample, without reading it."""
        shard, row = self._place(index)
        return f"{self.entries[shard].name} sample {row}"

    def contents(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Key of a sample and its members by suffix.

        Raises:
            OSError: it cannot be read.
            ValueError: what is read is damaged, or an index does not fit.
        """
        shard, row = self._place(index)
        entry = self.entries[shard]
        found = self._index(shard)[row]
        place = ByteRange(int(found["offset"]), int(found["length"]))
        location = join(self.folder, entry.name)
        far = is_remote(location)
        span = self._cache.read(location, self._sizes[shard], place) if far else read_range(Path(location), *place)
        if len(span) < place.size:
            raise ValueError(f"is cut off, the tar ends at byte {place.offset + len(span)}")
        return members_of_span(span)

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - int(self.ends[shard] - self.counts[shard])

    def _index(self, shard: int) -> np.ndarray:
        with self._lock:  # threads of a batch need the same index at the same time
            if shard not in self._indexes:
                found = read_index(self.folder, self.entries[shard], self._cache)
                if self.counts[shard] < len(found):
                    found = found[found["holds"] & HOLDS[self.wanted] > 0]
                if len(found) != self.counts[shard]:
                    raise ValueError(f"{self.folder}: the index of {self.entries[shard].name} does not fit the table.")
                self._indexes[shard] = found
                while len(self._indexes) > KEPT_INDEXES:
                    self._indexes.popitem(last=False)
            self._indexes.move_to_end(shard)
            return self._indexes[shard]

    def _start(self) -> None:
        self._cache, self._lock = PieceCache(self.settings), threading.Lock()
        self._indexes: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_cache", "_lock", "_indexes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


class IndexedImages:
    """The images of indexed tars, an ``ImageSource`` with an order of its own; arguments and errors as for ``IndexedShards``."""

    def __init__(self, folder: str | os.PathLike[str], settings: ReadSettings | None = None) -> None:
        self.shards = IndexedShards(folder, "images", settings)

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return self.shards.fingerprint

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def waits_for_network(self) -> bool:
        """See ``decoding.FittedImages``."""
        return is_remote(self.shards.folder)

    def order(self, seed: int) -> BlockOrder:
        """See ``OwnOrder``."""
        return self.shards.order(seed)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return self.shards.name(index)

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        place = f"{self.shards.folder}: {self.shards.name(index)}"
        try:
            key, contents = self.shards.contents(index)
        except (OSError, ValueError) as error:
            raise ImageError(f"{place}: {error}.") from error
        suffix = main_image(contents)
        if suffix is None:
            raise ImageError(f"{place}: has no image.")
        described = {name: content for name, content in contents.items() if name in METADATA_SUFFIXES}
        name = f"{place} ({key}{suffix})"
        return Sample(
            load_image(contents[suffix], name=name), key, usable_metadata(described, name, self.shards.folder)
        )


def block_sizes(counts: np.ndarray) -> np.ndarray:
    """Sizes of the blocks of shards of these numbers of samples: ``BLOCK`` each, and the rest of every shard."""
    blocks = -(-counts // BLOCK)
    sizes = np.full(int(blocks.sum()), BLOCK, dtype=np.int64)
    filled = counts > 0
    sizes[np.cumsum(blocks)[filled] - 1] = (counts[filled] - 1) % BLOCK + 1
    return sizes


def described_fields(contents: dict[str, bytes]) -> tuple[dict[str, Any], list[str]]:
    """The description among a sample's members, see ``parse_metadata``."""
    return parse_metadata({name: content for name, content in contents.items() if name in METADATA_SUFFIXES})


def _check_sizes(folder: str, entries: Sequence[ShardEntry], sizes: dict[str, int]) -> None:
    """Tars that are shorter than their index says only lose samples, which are counted as bad; everything else is an error."""
    missing = [entry.name for entry in entries if entry.name not in sizes]
    if missing:
        raise ValueError(f"{folder}: {len(missing)} of {len(entries)} tars are missing: {_listed(missing)}.")
    longer = [entry.name for entry in entries if sizes[entry.name] > entry.size]
    if longer:
        raise ValueError(f"{folder}: the index does not fit {_listed(longer)}: run `semhitok data index {folder}`.")
    shorter = [entry.name for entry in entries if sizes[entry.name] < entry.size]
    if len(shorter) == len(entries):
        raise ValueError(f"{folder}: every tar is shorter than its index says: run `semhitok data index {folder}`.")
    if shorter:
        warnings.warn(
            f"{folder}: {len(shorter)} of {len(entries)} tars are truncated ({_listed(shorter)}); their lost samples count as bad.",
            stacklevel=3,
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
