"""The pieces of a data set that are processed one by one: its tars, its parquet files, or parts of a folder of images."""

from __future__ import annotations

import glob
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from semhitok.data.folder import ImageFolder
from semhitok.data.hugging_face import is_hugging_face
from semhitok.data.parquet_images import ParquetImages
from semhitok.data.sample import ImageSource
from semhitok.data.shard_index import download, sizes_of_tars
from semhitok.data.sources import Subset
from semhitok.data.tar_shards import TarShards, find_tars
from semhitok.storage.objects import address, is_remote
from semhitok.storage.patience import ReadSettings


@dataclass(frozen=True)
class Shard:
    """One piece; it can be pickled and opened by another process.

    Attributes:
        name: name of what is made from it, unique in its data set.
        path: a tar, a parquet file, or the folder of images.
        stamp: changes with what is stored, as far as names and sizes tell.
        part: first image and the one after the last; None for whole files.
    """

    name: str
    path: Path
    stamp: str
    part: tuple[int, int] | None = None

    def open(self, draft_side: int | None = None) -> ImageSource:
        """Its images, in order; ``draft_side`` as for ``load_image``.

        Raises:
            ValueError: it cannot be read, or holds no images.
        """
        if self.part is not None:
            return Subset(_folder(self.path, draft_side), range(*self.part))
        if is_remote(self.path):
            return _FetchedTar(address(self.path), draft_side)
        kind = ParquetImages if self.path.suffix == ".parquet" else TarShards
        return kind(self.path, draft_side=draft_side)


class _FetchedTar(TarShards):
    """A tar of an object store, on local disk for as long as it is used."""

    def __init__(self, location: str, draft_side: int | None) -> None:
        settings = ReadSettings()
        folder, _, name = location.rpartition("/")
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name) / name
        try:
            download(location, sizes_of_tars(folder, settings)[name], copy, settings)
            super().__init__(copy, draft_side=draft_side)
        except (OSError, KeyError) as error:
            raise ValueError(f"{location}: cannot be fetched: {error}") from error


def find_shards(path: str | os.PathLike[str], images_per_shard: int = 1000) -> list[Shard]:
    """The shards of a data set.

    Args:
        path: a tar, a pattern of tars (see ``TarShards``), a parquet file, a folder of tars or of parquet files, or a folder of
            images, whose files are divided in the order of their names; or an address of tars such as ``s3://bucket/train``.
        images_per_shard: images of a part of a folder.

    Raises:
        ValueError: there is nothing to read, or two files have the same name.
        OSError: an object store cannot be read.
    """
    if is_remote(path):
        folder = address(path).rstrip("/")
        sizes = sizes_of_tars(folder, ReadSettings())
        return [Shard(name[:-4], Path(f"{folder}/{name}"), f"{name} {size}") for name, size in sorted(sizes.items())]
    place = Path(path)
    if place.is_dir():
        files = sorted(place.glob("*.tar")) or _parquet_files(place)
        if not files and is_hugging_face(place):
            raise ValueError(f"{path}: a Hugging Face data set is read from its parquet files, and it has none.")
        if not files:
            return _parts(place, images_per_shard)
    elif place.suffix == ".parquet":
        files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(str(path)))]
    elif place.suffix == ".tar":
        files = find_tars(path)
    elif place.exists():
        raise ValueError(f"{path}: is neither a folder nor a .tar or .parquet file.")
    else:
        files = []
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise ValueError(f"{missing[0] if missing else path}: no such file or folder.")
    twice = [name for name, count in Counter(file.stem for file in files).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: has two files called {twice[0]}, whose results would have the same name.")
    return [Shard(file.stem, file, f"{file.name} {file.stat().st_size}") for file in files]


def _parquet_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def _parts(folder: Path, size: int) -> list[Shard]:
    images = _folder(folder)
    starts = range(0, len(images), size)
    return [
        Shard(f"{number:06d}", folder, f"{images.fingerprint} {start}", (start, min(start + size, len(images))))
        for number, start in enumerate(starts)
    ]


@lru_cache(maxsize=1)
def _folder(path: Path, draft_side: int | None = None) -> ImageFolder:
    """Listed once in a process, not for each of its parts."""
    return ImageFolder(path, draft_side=draft_side)
