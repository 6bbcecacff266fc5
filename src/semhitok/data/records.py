"""Training records of the language model: texts, captions, image-generation prompts and chats (see ``record_parsing``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal

import numpy as np
from PIL import Image

from semhitok.data.images import ImageError, load_image
from semhitok.storage.byte_ranges import read_range

RecordKind = Literal["text", "caption", "text_to_image", "chat"]
Role = Literal["system", "user", "assistant"]

IMAGE = "<image>"
"""Marks the position of an image in a text."""

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


class RecordError(ValueError):
    """A record that cannot be used; the message is one sentence that starts with the record's name."""


def short(value: Any) -> str:
    """A value of a record as it stands in a message: one line of at most 200 characters, however large or deep it is."""
    found = _SHORT.repr(value)
    return found if len(found) <= 200 else f"{found[:197]}..."


@contextmanager
def whatever_is_wrong(name: str) -> Iterator[None]:
    """Turn what a record's content makes the parsers raise into a ``RecordError``: one record never ends a run.

    JSON nested too deeply is a ``RecursionError``, an integer beyond every float an ``OverflowError``, a file that is gone an
    ``OSError``, NUL in a path a ``ValueError``. Memory that runs out is not the record's fault and stays an error.
    """
    try:
        yield
    except RecordError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(f"{name}: cannot be used ({type(error).__name__}: {reason})") from error


@dataclass(frozen=True)
class Picture:
    """An image that has not been read yet, or its ids.

    Attributes:
        name: name for errors.
        file: file that holds the image.
        offset, size: byte range within the file, for a member of a tar.
        data: the bytes of the image's file, if these were read with the record; file is then None.
        ids: (N,) or (N,C) precomputed integer ids of the image tokenizer; file is then None.
        tokenizer: fingerprint of the tokenizer that produced the ids.
    """

    name: str
    file: Path | None = None
    offset: int = 0
    size: int | None = None
    data: bytes | None = None
    ids: np.ndarray | None = None
    tokenizer: str | None = None

    def load(self) -> Image.Image:
        """Read and decode it; raises ``ImageError`` if it is bad."""
        if self.data is not None:
            return load_image(self.data, name=self.name)
        assert self.file is not None
        if self.size is None:
            return load_image(self.file, name=self.name)
        try:
            data = read_range(self.file, self.offset, self.size)
        except OSError as error:
            raise ImageError(f"{self.name}: cannot be read: {error.strerror or error}.") from error
        return load_image(data, name=self.name)


@dataclass(frozen=True)
class Turn:
    """One message of a chat.

    Attributes:
        role: who says it.
        text: with ``<image>`` in place of images.
        places: where in the text images are, if not every ``<image>`` is one.
    """

    role: Role
    text: str
    places: tuple[int, ...] | None = None

    @classmethod
    def of(cls, role: Role, pieces: Sequence[str]) -> Turn:
        """The turn with an image between any two pieces of text."""
        text = IMAGE.join(pieces)
        if text.count(IMAGE) == len(pieces) - 1:
            return cls(role, text)
        ends = accumulate(len(piece) + len(IMAGE) for piece in pieces[:-1])
        return cls(role, text, tuple(end - len(IMAGE) for end in ends))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text between the images."""
        if self.places is None:
            return tuple(self.text.split(IMAGE))
        begins = [0, *(place + len(IMAGE) for place in self.places)]
        return tuple(self.text[begin:end] for begin, end in zip(begins, [*self.places, None], strict=True))


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        kind: kind of the record.
        name: name for reports.
        text: the text, caption or prompt; for a chat the captions of its image, if any.
        turns: turns of a chat, ending with an assistant's turn; empty for other kinds.
        pictures: images in order: one for each ``<image>`` of a chat, one for a caption or prompt, none for text.
    """

    kind: RecordKind
    name: str
    text: str = ""
    turns: tuple[Turn, ...] = ()
    pictures: tuple[Picture, ...] = ()


def caption_in_place_of_image(pieces: Sequence[str], caption: str) -> str:
    """A message with a caption in place of the images between its pieces."""
    return f"{caption}\n".join(pieces)
