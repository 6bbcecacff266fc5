"""The interface of image sources: samples by index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from semhitok.data.images import ImageError

METADATA_SUFFIXES = (".json", ".txt", ".cls")
"""Suffixes of files that describe the image of the same stem."""


@dataclass(frozen=True)
class Sample:
    """One image with its metadata.

    Attributes:
        image: RGB image of its original size.
        key: its name within the source.
        metadata: fields of the image's ``.json``, ``caption`` from its ``.txt``, ``class`` (int) from its ``.cls``; for
            Hugging Face data, the other columns.
    """

    image: Image.Image
    key: str
    metadata: dict[str, Any] = field(default_factory=dict)


class ImageSource(Protocol):
    """A finite, indexable collection of images.

    A source holds names and offsets but no open files, so it can be pickled and read by several processes at once.
    """

    @property
    def fingerprint(self) -> str:
        """Hex digest of names, order and sizes (not of contents): equal fingerprints mean the same data."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The sample's name, without reading it."""
        ...

    def load(self, index: int) -> Sample:
        """Read and decode a sample; raises ``ImageError`` if it is bad."""
        ...


def parse_metadata(contents: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Merge the files that describe one image.

    Args:
        contents: bytes by suffix, of ``METADATA_SUFFIXES``.
        name: the image's name, for errors.

    Raises:
        ImageError: a description cannot be read.
    """
    metadata: dict[str, Any] = {}
    try:
        if ".txt" in contents:
            metadata["caption"] = contents[".txt"].decode("utf-8").strip()
        if ".cls" in contents:
            metadata["class"] = int(contents[".cls"])
        if ".json" in contents:
            metadata.update(json.loads(contents[".json"]))
        str(metadata.get("caption", "")).encode()  # half a surrogate pair, which no text tokenizer takes
    except (ValueError, TypeError, RecursionError) as error:
        raise ImageError(f"{name}: the metadata cannot be read: {error}.") from error
    return metadata


def digest_of_lines(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
