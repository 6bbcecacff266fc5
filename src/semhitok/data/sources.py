"""Image sources: their kinds, subsets, and opening one according to what is on disk."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semhitok.data.folder import ImageFiles, ImageFolder, image_files
from semhitok.data.hugging_face import HuggingFaceImages, is_hugging_face
from semhitok.data.indexed_shards import IndexedImages
from semhitok.data.sample import ImageSource, Sample, digest_of_lines
from semhitok.data.shard_index import has_table
from semhitok.data.tar_shards import TarShards
from semhitok.storage.objects import address, is_remote

__all__ = [
    "HuggingFaceImages",
    "ImageFiles",
    "ImageFolder",
    "ImageSource",
    "IndexedImages",
    "Sample",
    "Subset",
    "TarShards",
    "evenly_spaced",
    "open_images",
    "open_source",
]


class Subset:
    """A subset of a source's samples in the given order.

    Args:
        source: any source.
        indices: (N,) indices into it; repetitions are allowed.
    """

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)
        if len(self.indices) and (self.indices.min() < 0 or self.indices.max() >= len(source)):
            raise ValueError(f"indices of a subset must lie in [0, {len(source)}).")

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return digest_of_lines([self.source.fingerprint, *map(str, self.indices)])

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return self.source.key(int(self.indices[index]))

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        return self.source.load(int(self.indices[index]))


def evenly_spaced(source: ImageSource, limit: int) -> Subset:
    """At most ``limit`` samples of a source, from its first to its last."""
    picked = np.linspace(0, len(source) - 1, min(limit, len(source))).astype(int)
    return Subset(source, np.unique(picked))


def open_source(path: str | os.PathLike[str], *, split: str | None = None, allow_outside: bool = False) -> ImageSource:
    """Open a folder of images, tars (file, folder, glob pattern or ``{0000..0003}.tar``), a parquet file or a Hugging Face data
    set; a folder of indexed tars (``semhitok data index``), also in an object store (``s3://bucket/train``), is read shard by shard.

    A split is a subfolder of that name, the tars named after it (``train.tar``, ``train-0000.tar``), or a Hugging
    Face split.

    Args:
        path: what to open.
        split: as above; None if there is only one.
        allow_outside: whether images that a Hugging Face data set stores as paths may lie outside its folder.

    Raises:
        ValueError: there is nothing to read, the split does not exist, or none of several was chosen.
    """
    if is_remote(path):
        return IndexedImages(address(path) if split is None else f"{address(path).rstrip('/')}/{split}")
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, split, allow_outside)
    if split is not None:
        raise ValueError(f"{path}: is not a folder, so there is no split {split!r} to choose.")
    if path.suffix == ".parquet" and path.is_file():
        return HuggingFaceImages.open(path, allow_outside=allow_outside)
    if path.suffix == ".tar" and (path.is_file() or glob.has_magic(str(path)) or "{" in path.name):
        return TarShards(path)
    if path.exists():
        raise ValueError(f"{path}: is neither a folder nor a .tar or .parquet file.")
    raise ValueError(f"{path}: no such file or folder.")


def _open_folder(path: Path, split: str | None, allow_outside: bool) -> ImageSource:
    if split is None and has_table(path):
        return IndexedImages(path)
    if is_hugging_face(path):
        return HuggingFaceImages.open(path, split=split, allow_outside=allow_outside)
    if split is not None:
        if (path / split).is_dir():
            return _open_folder(path / split, None, allow_outside)
        shards = [shard for shard in sorted(path.glob("*.tar")) if _split_of(shard) == split]
        if not shards:
            raise ValueError(f"{path}: has no split {split!r}, neither a subfolder nor tars of that name.")
        return TarShards(shards)
    if any(path.glob("*.tar")):
        splits = sorted({_split_of(shard) for shard in path.glob("*.tar")})
        if len(splits) > 1:
            raise ValueError(f"{path}: has the splits {', '.join(splits)}; name one of them, or {path}/*.tar for all.")
        return TarShards(path)
    splits = sorted({child.parent.name for child in path.glob("*/*.tar")})
    if splits:
        raise ValueError(f"{path}: has the splits {', '.join(splits)}; name one of them.")
    return ImageFolder(path)


def _split_of(shard: Path) -> str:
    """The split of a tar: ``train`` for ``train-0001.tar``, an empty name for ``0001.tar``."""
    return re.sub(r"[-_.]?\d+$", "", shard.stem)


def open_images(paths: Sequence[Path], *, allow_outside: bool = False) -> ImageSource:
    """Open one data set (folder with subfolders, tars ...), or several files and folders; ``allow_outside`` as for
    ``open_source``.

    Raises:
        ValueError, FileNotFoundError: a path does not exist, or there are no images.
    """
    if len(paths) == 1 and is_remote(paths[0]):
        return open_source(paths[0])
    if len(paths) == 1 and (paths[0].is_dir() or paths[0].suffix in (".tar", ".parquet")):
        return open_source(paths[0], allow_outside=allow_outside)
    return ImageFiles(image_files(paths))
