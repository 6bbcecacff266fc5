"""Records in ``.jsonl`` files and ``.json`` arrays, with random access."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semhitok.data.json_places import elements, lines
from semhitok.data.record_parsing import given_ids, images_of_messages, parse_record
from semhitok.data.records import Picture, Record, RecordError, RecordKind, short, whatever_is_wrong
from semhitok.data.sample import MAX_DESCRIPTION_BYTES, digest_of_lines
from semhitok.storage.byte_ranges import lies_in, read_range

MAX_IMAGES = 4096
"""Records with more images are rejected before their paths are looked up."""


class JsonLines:
    """The lines of a ``.jsonl`` file, or the elements of a ``.json`` array as LLaVA has it; paths of images are relative to it.

    Opening reads the file once and keeps 16 bytes per record.

    Args:
        path: the file.
        kind: of the records.
        allow_outside: whether images may lie outside the file's folder; else ``..``, absolute paths and links that lead out
            of it are refused.

    Raises:
        ValueError: the file does not exist, has no records, or is a ``.json`` that is no array.
    """

    def __init__(self, path: str | os.PathLike[str], kind: RecordKind, *, allow_outside: bool = False) -> None:
        self.path = Path(path)
        self.allow_outside = allow_outside
        self.kind: RecordKind = kind
        if not self.path.is_file():
            raise ValueError(f"{path}: no such file.")
        places = elements(self.path) if self.path.suffix == ".json" else lines(self.path)
        self._places = np.asarray(list(places), dtype=np.int64).reshape(-1, 2)
        if len(self) == 0:
            raise ValueError(f"{path}: is empty, lines of JSON or an array are needed.")

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return digest_of_lines([self.path.name, self.kind, *"0", *map(str, self._places[:, 1])])

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return f"{self.path.name} {'element' if self.path.suffix == '.json' else 'line'} {index + 1}"

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        name = self.name(index)
        begin, end = map(int, self._places[index])
        with whatever_is_wrong(name):
            check_length(end - begin, name)
            line = read_range(self.path, begin, end - begin)
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RecordError(f"{name}: is not JSON ({error})") from error
            if not isinstance(fields, dict):
                raise RecordError(f"{name}: must be a JSON object, got {type(fields).__name__}")
            return parse_record(fields, self.kind, name, self._pictures(fields, name), choice)

    def _pictures(self, fields: Mapping[str, Any], name: str) -> list[Picture]:
        if "image_ids" in fields:
            return [given_ids(fields, name)]
        images = fields.get("images") or fields.get("image") or images_of_messages(fields)
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise RecordError(f"{name}: images must be paths, got {short(images)}")
        if len(images) > MAX_IMAGES:
            raise RecordError(f"{name}: has {len(images):,} images, up to {MAX_IMAGES:,} are accepted")
        return [Picture(f"{name}: {image}", self._place(image, name)) for image in images]

    def _place(self, image: str, name: str) -> Path:
        folder = self.path.parent
        try:
            inside = self.allow_outside or lies_in(folder / image, folder)
        except (OSError, ValueError) as error:  # NUL, half a surrogate pair
            raise RecordError(f"{name}: no file can be named {short(image)} ({error})") from error
        if not inside:
            raise RecordError(
                f"{name}: the image {short(image)} lies outside {folder}, which allow_outside would have to permit"
            )
        return folder / image


def check_length(size: int, name: str) -> None:
    """Refuse a description or record that is too long to be read; raises ``RecordError``."""
    if size > MAX_DESCRIPTION_BYTES:
        raise RecordError(f"{name}: has {size:,} bytes, up to {MAX_DESCRIPTION_BYTES:,} are accepted")
