"""Licence and author of a file, read from a Debian package's machine-readable copyright file (DEP-5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_SUFFIXES = (
    ".webp",
    ".jpg",
    ".JPG",
    ".jpeg",
    ".png",
)  # packages re-encode pictures; the copyright file names the originals


@dataclass(frozen=True)
class Terms:
    """Short licence name (for example ``CC-BY-SA-3.0``) and comma-separated copyright holders; '' if unknown."""

    licence: str = ""
    author: str = ""


def read_copyright(path: Path) -> list[tuple[list[str], Terms]]:
    """(patterns, terms) of every ``Files`` paragraph, in file order; empty if the file is not in that format."""
    found = []
    for paragraph in re.split(r"\n\s*\n", path.read_text("utf-8", "replace")):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            start = re.match(r"([A-Za-z-]+):(.*)", line)
            if start:
                name = start.group(1).lower()
                fields[name] = start.group(2).strip()
            elif name and line.startswith((" ", "\t")):
                fields[name] += "\n" + line.strip()
        if "files" in fields and "license" in fields:
            holders = [_holder(line) for line in fields.get("copyright", "").splitlines()]
            terms = Terms(fields["license"].splitlines()[0].strip(), ", ".join(dict.fromkeys(h for h in holders if h)))
            found.append((fields["files"].split(), terms))
    return found


def _holder(line: str) -> str:
    """'2008, Charles Barbin <a@b.c>' and 'Jane Doe, 2018' -> the name."""
    line = re.sub(r"<[^>]*>|\(c\)|©|^by\b", "", line)
    line = re.sub(r"^[\s\d,.–-]+(by\s)?|[\s,]*\b\d{4}[\d,\s–-]*$", "", line)
    return line.strip(' ,´"')


def terms_of(paragraphs: list[tuple[list[str], Terms]], path: str) -> Terms:
    """Terms of one file: the last paragraph with a matching pattern applies, as the format specifies."""
    stem = path.rsplit(".", 1)[0]
    names = [path, *(stem + suffix for suffix in _SUFFIXES)]
    for patterns, terms in reversed(paragraphs):
        if any(fnmatchcase(name, pattern) for pattern in patterns for name in names):
            return terms
    return Terms()
