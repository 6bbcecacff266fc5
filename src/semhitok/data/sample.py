"""The interface of image sources: samples by index."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

METADATA_SUFFIXES = (".json", ".txt", ".cls")
"""Suffixes of files that describe the image of the same stem."""
MAX_DESCRIPTION_BYTES = 16 * 1024 * 1024
"""Longer descriptions and records are not read."""

_told: set[tuple[str, str]] = set()  # sources, and what has been told of their descriptions


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


def parse_metadata(contents: Mapping[str, bytes]) -> tuple[dict[str, Any], list[str]]:
    """The files that describe one image, merged, and what is wrong with those that say nothing usable.

    Captions may be UTF-8 or Latin-1. A ``.json`` that is no object (a list of boxes, ``null``) and a ``.cls`` that is no whole
    number are not used.

    Args:
        contents: bytes by suffix, of ``METADATA_SUFFIXES``.
    """
    metadata: dict[str, Any] = {}
    wrong = []
    if ".txt" in contents:
        try:
            metadata["caption"] = contents[".txt"].decode("utf-8").strip()
        except UnicodeDecodeError:
            metadata["caption"] = contents[".txt"].decode("latin-1").strip()
    if ".cls" in contents:
        try:
            metadata["class"] = int(contents[".cls"])
        except ValueError:
            wrong.append("a .cls that is no whole number")
    if ".json" in contents:
        try:
            fields = json.loads(contents[".json"])
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            metadata.update(fields)
        else:
            wrong.append("a .json that is no JSON object")
    try:
        str(metadata.get("caption", "")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no text tokenizer takes
        del metadata["caption"]
        wrong.append("half a surrogate pair in its caption")
    return metadata, wrong


def usable_metadata(contents: Mapping[str, bytes], name: str, place: str) -> dict[str, Any]:
    """As ``parse_metadata``; what is not used is told once for each source.

    Args:
        contents: bytes by suffix.
        name: the image's name.
        place: the source's name.
    """
    metadata, wrong = parse_metadata(contents)
    for reason in wrong:
        if (place, reason) not in _told:
            _told.add((place, reason))
            warnings.warn(f"{place}: images with {reason}, such as {name}, are used without it", stacklevel=2)
    return metadata


def digest_of_lines(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
