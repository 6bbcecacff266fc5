"""Indexes of webdataset tars, so that samples of any number of shards, also in an object store, are reached without reading headers.

Beside ``0001.tar`` lies ``0001.tar.index``: a header of 24 bytes (``SHARDIX1``, size of the tar, number of samples), then 16 bytes for
each sample: offset (8) and length (4) of the bytes that its members take, and what they are (4: 1 an image, 2 a description). In the
folder, ``shards.json`` lists all tars with their sizes and numbers of samples, which is all that opening the data reads.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from semhitok.data.sample import METADATA_SUFFIXES
from semhitok.data.tar_index import main_image, sample_spans
from semhitok.storage.atomic import atomic_file
from semhitok.storage.byte_ranges import ByteRange, read_file
from semhitok.storage.objects import address, is_remote, object_sizes, read_object, write_object
from semhitok.storage.patience import ReadSettings
from semhitok.storage.piece_cache import PieceCache

SUFFIX, TABLE = ".index", "shards.json"
MAGIC, HEADER = b"SHARDIX1", np.dtype([("magic", "S8"), ("size", "<u8"), ("samples", "<u8")])
SAMPLE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("holds", "<u4")])
Wanted = Literal["images", "records"]
HOLDS: dict[Wanted, int] = {"images": 1, "records": 2}
"""Bits of the samples that have an image, and of those that have a description."""


@dataclass(frozen=True)
class ShardEntry:
    """One tar of the table.

    Attributes:
        name: its file name.
        size: its size in bytes.
        samples, images, records: number of samples, of those with an image, and of those with a description.
    """

    name: str
    size: int
    samples: int
    images: int
    records: int

    def count(self, wanted: Wanted) -> int:
        """Number of the samples of one kind."""
        return self.images if wanted == "images" else self.records


def build_index(tar: Path) -> np.ndarray:
    """(samples,) of ``SAMPLE``, for a tar on local disk; samples with neither image nor description are left out.

    Raises:
        ValueError: see ``tar_index.index_tar``; or a sample has 4 GiB or more.
    """
    rows = []
    for place, suffixes in sample_spans(tar):
        holds = HOLDS["images"] * (main_image(suffixes) is not None)
        holds += HOLDS["records"] * bool(set(suffixes) & set(METADATA_SUFFIXES))
        if place.size >= 2**32:
            raise ValueError(
                f"{tar}: the sample at byte {place.offset} has {place.size:,} bytes, less than 4 GiB are accepted."
            )
        if holds:
            rows.append((place.offset, place.size, holds))
    return np.array(rows, dtype=SAMPLE)


def index_shards(
    folder: str, settings: ReadSettings | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[ShardEntry]:
    """Write the index of every tar of a folder or an address, and the table; indexes that fit are kept.

    Raises:
        ValueError: there are no tars, or one is compressed, truncated or corrupt; indexes of the others are written all the same.
        OSError: the store cannot be read or written.
    """
    settings = settings or ReadSettings()
    folder = address(folder)
    sizes = sizes_of_tars(folder, settings)
    entries, faults = [], []
    for done, (name, size) in enumerate(sorted(sizes.items())):
        progress(done, len(sizes))
        try:
            index = _index_one(folder, name, size, settings)
        except ValueError as error:
            faults.append(str(error))
            continue
        held = [int((index["holds"] & bit > 0).sum()) for bit in (HOLDS["images"], HOLDS["records"])]
        entries.append(ShardEntry(name, size, len(index), *held))
    if faults:
        raise ValueError(f"{len(faults)} of {len(sizes)} tars cannot be indexed, the first: {faults[0]}")
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in entries)
    _write(_join(folder, TABLE), f'{{"version": 1, "shards": [\n{lines}\n]}}\n'.encode(), settings)
    return entries


def read_table(folder: str, settings: ReadSettings) -> list[ShardEntry]:
    """The table of a folder or an address.

    Raises:
        ValueError: there is none, or it is damaged.
        OSError: the store cannot be read.
    """
    place = _join(folder, TABLE)
    if not is_remote(folder) and not Path(place).is_file():
        raise ValueError(f"{folder}: has no {TABLE}: run `semhitok data index {folder}`.")
    try:
        content = read_object(place, None, settings) if is_remote(folder) else read_file(Path(place))
    except OSError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            object_sizes(folder, settings)  # says so if the bucket is missing
            raise ValueError(f"{folder}: has no {TABLE}: run `semhitok data index {folder}`.") from error
        raise
    try:
        found = json.loads(content)
        if found["version"] != 1:
            raise ValueError(f"version {found['version']}")
        return [ShardEntry(**entry) for entry in found["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{place}: is damaged or of another version ({error}): run `semhitok data index {folder}`."
        ) from error


def read_index(folder: str, entry: ShardEntry, cache: PieceCache) -> np.ndarray:
    """The index of one tar, (samples,) of ``SAMPLE``; memory-mapped on local disk, through the cache from a store.

    Raises:
        ValueError: it is missing, damaged, or does not fit the table.
        OSError: the store cannot be read.
    """
    place = _join(folder, entry.name + SUFFIX)
    if is_remote(folder):
        size = HEADER.itemsize + entry.samples * SAMPLE.itemsize
        content = np.frombuffer(cache.read(place, size, ByteRange(0, size)), np.uint8)
    elif Path(place).is_file() and Path(place).stat().st_size:
        content = np.memmap(place, np.uint8, "r")
    else:
        content = np.empty(0, np.uint8)
    if not _fits(content, entry.size, entry.samples):
        raise ValueError(f"{place}: is missing, damaged, or does not fit its tar: run `semhitok data index {folder}`.")
    return content[HEADER.itemsize :].view(SAMPLE)


def sizes_of_tars(folder: str, settings: ReadSettings) -> dict[str, int]:
    """Size in bytes of the tars of a folder or an address, by name.

    Raises:
        ValueError: there are none.
        OSError: the store cannot be read.
    """
    if is_remote(folder):
        found = object_sizes(folder, settings)
    else:
        with os.scandir(folder) as files:
            found = {file.name: file.stat().st_size for file in files if file.name.endswith(".tar")}
    tars = {name: size for name, size in found.items() if name.endswith(".tar")}
    if not tars:
        raise ValueError(f"{folder}: there are no tar files.")
    return tars


def has_table(folder: str | os.PathLike[str]) -> bool:
    """Whether a local folder has been indexed."""
    return (Path(folder) / TABLE).is_file()


def join(folder: str, name: str) -> str:
    """The location of a file; the name comes from a table and never leads out of the folder.

    Raises:
        ValueError: the name is more than a name.
    """
    if PurePosixPath(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{folder}: lists a file called {name!r}, which is not a name.")
    return _join(folder, name)


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _index_one(folder: str, name: str, size: int, settings: ReadSettings) -> np.ndarray:
    place = join(folder, name)
    found = _present(place + SUFFIX, size, settings)
    if found is not None:
        return found
    if not is_remote(folder):
        index = build_index(Path(place))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / name
            download(place, size, copy, settings)
            try:
                index = build_index(copy)
            except ValueError as error:
                raise ValueError(str(error).replace(str(copy), place)) from error
    header = np.array([(MAGIC, size, len(index))], HEADER)
    _write(place + SUFFIX, header.tobytes() + index.tobytes(), settings)
    return index


def download(location: str, size: int, target: Path, settings: ReadSettings) -> None:
    """Copy an object to local disk, part by part, each with its own attempts; raises ``OSError``."""
    part = 16 * 2**20
    with target.open("wb") as file:
        for offset in range(0, size, part):
            file.write(read_object(location, ByteRange(offset, min(part, size - offset)), settings))


def _present(place: str, size: int, settings: ReadSettings) -> np.ndarray | None:
    """An index that was written before and fits, None otherwise."""
    try:
        content = read_object(place, None, settings) if is_remote(place) else read_file(Path(place))
    except OSError:
        return None
    array = np.frombuffer(content, np.uint8)
    return array[HEADER.itemsize :].view(SAMPLE) if _fits(array, size, None) else None


def _fits(content: np.ndarray, size: int, samples: int | None) -> bool:
    """Whether the bytes of an index are whole and belong to a tar of this size (and number of samples)."""
    if len(content) < HEADER.itemsize:
        return False
    header = content[: HEADER.itemsize].view(HEADER)[0]
    whole = len(content) == HEADER.itemsize + int(header["samples"]) * SAMPLE.itemsize
    fits = header["magic"] == MAGIC and int(header["size"]) == size
    return bool(whole and fits and samples in (None, int(header["samples"])))


def _write(place: str, content: bytes, settings: ReadSettings) -> None:
    if is_remote(place):
        write_object(place, content, settings)
        return
    with atomic_file(Path(place)) as unfinished:
        unfinished.write_bytes(content)
