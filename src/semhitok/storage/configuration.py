"""Configuration files that nobody vouches for: whatever is wrong with one becomes one sentence that names the place and the field."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGEST_FILE = 2**24
"""Bytes; a configuration of 16 MiB would describe nothing."""
DEEPEST = 64
MOST_REPEATS = 2**20
"""Above every model there is: libraries make lists of this length before the first tensor could be compared with a file."""
_REPEATED = re.compile(r"layer|depth|block|stage|label")
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "enough memory")


class DamagedFileError(ValueError):
    """A file cannot be read as what it should be; the message is one sentence that names it."""


def read_configuration(file: Path) -> dict[str, Any]:
    """The fields of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is no JSON, no regular file, or too large.
        ValueError: see ``check_configuration``.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DamagedFileError(f"{file} is not a regular file")
    if found.st_size > LARGEST_FILE:
        raise DamagedFileError(f"{file} has more than {LARGEST_FILE // 2**20} MiB, which no configuration needs")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{file} is not JSON: {one_line(error)}") from error
    check_configuration(fields, file)
    return fields


def check_configuration(fields: Any, place: str | os.PathLike[str]) -> None:
    """Reject what is no configuration before a library builds anything from it.

    Args:
        fields: the content of a JSON file.
        place: its name, for the message.

    Raises:
        ValueError: it is no object of fields, is nested too deeply, or repeats layers or labels without end.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{place} must hold an object of fields, got {type(fields).__name__}")
    waiting: list[tuple[str, Any, int]] = [("", fields, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"{place} is nested more than {DEEPEST} deep in {name[:80]}")
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}".lstrip("."), each, depth + 1) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(name, each, depth + 1) for each in value]
        elif isinstance(value, int) and abs(value) > MOST_REPEATS and _REPEATED.search(name.rpartition(".")[2]):
            raise ValueError(f"{place}: {name} must be at most {MOST_REPEATS}, got {_shortened(value)}")


@contextmanager
def sentence_about(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the files of ``place`` make the libraries raise into a ``ValueError`` of one sentence that names it.

    What already is a sentence about the place, a system error or a lack of memory passes as it is.
    """
    try:
        yield
    except MemoryError:
        raise
    except OSError as error:
        if "\n" not in str(error):
            raise
        raise OSError(one_line(error)) from error
    except Exception as error:
        if isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _OUT_OF_MEMORY):
            raise
        if isinstance(error, ValueError) and os.fspath(place) in str(error) and "\n" not in str(error):
            raise
        raise ValueError(f"{os.fspath(place)} cannot be loaded: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The message of an error in one line of at most 400 characters, with its type unless it is a plain ``ValueError``."""
    text = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
    if not isinstance(error, ValueError | OSError) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= 400 else f"{text[:397]}..."


def _shortened(number: int) -> str:
    return f"{number}" if abs(number) < 10**20 else "a number of more than 20 digits"
