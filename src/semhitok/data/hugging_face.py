"""Hugging Face data sets of images."""

from __future__ import annotations

import csv
import json
import os
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

from semhitok.data.folder import files_below
from semhitok.data.images import ImageError, load_image
from semhitok.data.sample import Sample, digest_of_lines
from semhitok.storage.byte_ranges import lies_in


class HuggingFaceImages:
    """A Hugging Face ``datasets.Dataset`` (map-style) with a column of images; needs ``pip install semhitok[data]``.

    Args:
        dataset: the data set.
        image_column: name of the column of images; by default ``image``, or the only column of images.
        fingerprint: fingerprint of the data; by default the data set's own.
        folder: folder in which images stored as paths must lie; None accepts any path.

    Raises:
        ValueError: the package ``datasets`` is missing, or there is no such column.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        image_column: str | None = None,
        fingerprint: str | None = None,
        folder: Path | None = None,
    ) -> None:
        datasets = _import_datasets()
        image_column = image_column or _image_column(dataset, datasets)
        if image_column not in dataset.column_names:
            raise ValueError(f"the data set has no column {image_column!r}, only {', '.join(dataset.column_names)}.")
        self._fingerprint = fingerprint or digest_of_lines([dataset._fingerprint, str(len(dataset))])
        # Undecoded, so that all sources are decoded in the same way.
        self._dataset = dataset.cast_column(image_column, datasets.Image(decode=False))
        self._image_column = image_column
        self._folder = folder

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        split: str | None = None,
        image_column: str | None = None,
        allow_outside: bool = False,
    ) -> HuggingFaceImages:
        """Open a folder written by ``save_to_disk``, a parquet file, or a folder that ``load_dataset`` can read.

        Images that are stored as paths must lie in that folder, or in the parquet file's, unless ``allow_outside``.

        Raises:
            ValueError: the split does not exist, or none was chosen and there are several.
        """
        datasets = _import_datasets()
        path = Path(path)
        files = [(path.name, path.stat().st_size)] if path.is_file() else sorted(files_below(path))
        # Written by ``datasets`` when somebody filters or maps the saved data set.
        files = [(name, size) for name, size in files if not fnmatch(name.rpartition("/")[2], "cache-*.arrow")]
        try:
            if path.is_file():
                dataset = datasets.load_dataset("parquet", data_files=str(path))
            elif any(name in ("dataset_dict.json", "state.json") for name, _ in files):
                dataset = datasets.load_from_disk(str(path))
            else:
                dataset = datasets.load_dataset(str(path))
        except Exception as error:  # its many readers may raise anything
            raise ValueError(f"{path}: cannot be opened as a Hugging Face data set: {error}.") from error
        if isinstance(dataset, datasets.DatasetDict):
            dataset, split = _choose_split(dataset, split, path)
        elif split is not None and str(dataset.split) != split:
            raise ValueError(f"{path}: is one data set without a split {split!r}.")
        lines = [f"split {split}", *(f"{name} {size}" for name, size in files)]
        folder = None if allow_outside else path.parent if path.is_file() else path
        return cls(dataset, image_column=image_column, fingerprint=digest_of_lines(lines), folder=folder)

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return f"{index:08d}"

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        row = dict(self._dataset[index])
        stored = row.pop(self._image_column) or {}
        path = stored.get("path")
        name = f"row {index} ({path})" if path else f"row {index}"
        data = path if stored.get("bytes") is None else stored["bytes"]
        if data is None:
            raise ImageError(f"{name}: has no image.")
        if isinstance(data, str) and self._folder is not None:
            self._check_place(data, name)
        if "caption" not in row and isinstance(row.get("text"), str):
            row["caption"] = row["text"]
        return Sample(image=load_image(data, name=name), key=self.key(index), metadata=row)

    def _check_place(self, path: str, name: str) -> None:
        assert self._folder is not None
        try:
            inside = lies_in(Path(path), self._folder)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: no file can have this name: {error}.") from error
        if not inside:
            raise ImageError(f"{name}: lies outside {self._folder}, which allow_outside would have to permit.")


def is_hugging_face(path: Path) -> bool:
    """Whether a folder is a data set of ``datasets``: saved to disk, parquet files, or images with a metadata table."""
    return (
        any((path / name).is_file() for name in ("dataset_dict.json", "state.json", "metadata.parquet"))
        or any(_names_files(path / name) for name in ("metadata.csv", "metadata.jsonl"))
        or any(path.glob("*.parquet"))
        or any((path / "data").glob("*.parquet"))
    )


def _names_files(table: Path) -> bool:
    """Whether a table has a column of file names, without which ``datasets`` cannot use it and it is about something else."""
    if not table.is_file():
        return False
    with table.open("rb") as file:
        line = file.readline(2**20)
    try:
        columns = next(csv.reader([line.decode("utf-8-sig")])) if table.suffix == ".csv" else json.loads(line)
        return any(str(column) == "file_name" or str(column).endswith("_file_name") for column in columns)
    except (ValueError, TypeError, StopIteration, RecursionError, csv.Error):
        return False


def _image_column(dataset: Any, datasets: ModuleType) -> str:
    columns = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    return columns[0] if "image" not in dataset.column_names and len(columns) == 1 else "image"


def _choose_split(dataset: Any, split: str | None, path: Path) -> tuple[Any, str]:
    names = list(dataset)
    if split is None and len(names) == 1:
        split = names[0]
    if split is None:
        raise ValueError(f"{path}: has the splits {', '.join(names)}; name one of them.")
    if split not in names:
        raise ValueError(f"{path}: has no split {split!r}, only {', '.join(names)}.")
    return dataset[split], split


def _import_datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ValueError("Hugging Face data sets need the package datasets: pip install semhitok[data].") from error
    return datasets
