"""Where the records of a JSON file lie: lines of JSON, or the elements of an array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

_NO_SPACE = re.compile(r"[^ \t\r\n]")


def lines(path: Path) -> Iterator[tuple[int, int]]:
    """Begin and end of each line, in bytes."""
    begin = 0
    with path.open("rb") as file:
        for line in file:
            yield begin, begin + len(line)
            begin += len(line)


def elements(path: Path) -> Iterator[tuple[int, int]]:
    """Begin and end of each element of a JSON array, in bytes.

    Raises:
        ValueError: the file is no JSON array; the message says from which byte on.
    """
    text = path.read_bytes().decode("latin-1")  # a character for each byte; what has a meaning in JSON is ASCII
    decoder, position = json.JSONDecoder(), _next(text, 0)
    if text[position : position + 1] != "[":
        raise ValueError(f"{path}: is no JSON array of records.")
    position = _next(text, position + 1)
    while text[position : position + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: is not JSON from byte {position} on ({error}).") from error
        yield position, end
        position = _next(text, end)
        if text[position : position + 1] not in (",", "]"):
            raise ValueError(
                f"{path}: is not JSON from byte {position} on (a comma or the end of the array is missing)."
            )
        position = _next(text, position + (text[position] == ","))


def _next(text: str, position: int) -> int:
    """The position of the next character that is no space."""
    found = _NO_SPACE.search(text, position)
    return found.start() if found else len(text)
