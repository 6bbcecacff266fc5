"""Images stored in a parquet file, read from its beginning to its end without holding a row group in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semhitok.data.images import ImageError, load_image
from semhitok.data.sample import Sample, digest_of_lines
from semhitok.data.token_files import import_pyarrow
from semhitok.storage.byte_ranges import lies_in

ROWS = 32  # read at a time
KEPT = 8  # such reads kept, for threads that fall behind
KEYS = ("key", "__key__")


class ParquetImages:
    """An ``ImageSource`` over the rows of a parquet file; reading in order is fast, going back is not.

    The column ``image``, or the only one that can be, holds the bytes of image files, or ``{"bytes", "path"}`` as Hugging Face
    data sets have it. A path must lie in the file's folder. ``key`` or ``__key__`` names a row, otherwise its number does; other
    columns describe it, ``text`` as its caption if there is no ``caption``.

    Args:
        path: the file.
        draft_side: see ``load_image``.

    Raises:
        ValueError: it is damaged, or has no column of images.
    """

    def __init__(self, path: Path, *, draft_side: int | None = None) -> None:
        import_pyarrow()
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        self.path, self.draft_side = path, draft_side
        try:
            with ParquetFile(path) as file:
                self._groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                self._image = _image_column(file.schema_arrow)
                self._key = next((name for name in KEYS if name in file.schema_arrow.names), None)
        except (ArrowException, OSError) as error:
            raise ValueError(f"{path}: is not a parquet file, or is damaged: {error}.") from error
        if self._image is None:
            raise ValueError(f"{path}: has no column `image` with images, only {', '.join(file.schema_arrow.names)}.")
        self._lock = threading.Lock()
        self._rewind(0)

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return digest_of_lines([self.path.name, str(self.path.stat().st_size), *map(str, self._groups)])

    def __len__(self) -> int:
        return sum(self._groups)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return f"{index:08d}" if self._key is None else str(self._row(index)[self._key])

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        from pyarrow import ArrowException

        try:
            row = self._row(index)
        except (ArrowException, OSError) as error:
            raise ImageError(f"{self.path.name} row {index}: cannot be read: {error}.") from error
        assert self._image is not None
        stored = row.pop(self._image)
        key = f"{index:08d}" if self._key is None else str(row.pop(self._key))
        if "caption" not in row and isinstance(row.get("text"), str):
            row["caption"] = row.pop("text")
        name = f"{self.path.name}: {key}"
        return Sample(load_image(self._located(stored, name), name=name, draft_side=self.draft_side), key, row)

    def _located(self, stored: Any, name: str) -> bytes | Path:
        stored = {"bytes": stored} if isinstance(stored, bytes) else stored or {}
        if isinstance(stored.get("bytes"), bytes):
            return stored["bytes"]
        if not isinstance(stored.get("path"), str):
            raise ImageError(f"{name}: has no image.")
        file = self.path.parent / stored["path"]
        try:
            inside = lies_in(file, self.path.parent)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: no file can have this name: {error}.") from error
        if not inside:
            raise ImageError(f"{name}: its image lies outside {self.path.parent}.")
        return file

    def _row(self, index: int) -> dict[str, Any]:
        with self._lock:
            if index < (self._parts[0][0] if self._parts else self._end):
                self._rewind(index)
            while index >= self._end:
                part = next(self._rest)
                self._parts.append((self._end, part))
                self._end += part.num_rows
            start, part = next(each for each in reversed(self._parts) if each[0] <= index)
            (row,) = part.slice(index - start, 1).to_pylist()
            return row

    def _rewind(self, index: int) -> None:
        """Read on from the row group of a row."""
        group = first = 0
        while group < len(self._groups) and first + self._groups[group] <= index:
            first, group = first + self._groups[group], group + 1
        self._parts: deque[tuple[int, Any]] = deque(maxlen=KEPT)
        self._end = first
        self._rest = self._read(group)

    def _read(self, group: int) -> Iterator[Any]:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(self.path) as file:
            groups = list(range(group, len(self._groups)))
            yield from file.iter_batches(ROWS, groups, use_threads=False)


def _image_column(schema: Any) -> str | None:
    pa = import_pyarrow()

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    columns = [field.name for field in schema if holds_images(field.type)]
    return "image" if "image" in columns else columns[0] if len(columns) == 1 else None
