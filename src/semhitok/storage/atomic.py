"""Atomic writes: a file or folder appears complete under its name or not at all, whatever kills the process."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

UNFINISHED = ".unfinished-"
"""Prefix of every temporary name: hidden, so that no reader mistakes it for an image, a token file or a checkpoint."""

REPLACED = ".replaced-"
"""Prefix of what a new folder replaces, for the moment between two renames: a kill there leaves it under this name."""

LEFTOVER_SECONDS = 24 * 3600.0
"""An unfinished folder that was not touched for this long belongs to a process that was killed."""


class WriteError(OSError, ValueError):
    """A file or folder could not be written; the message is one sentence for the user."""


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Temporary path to write a file to, which replaces ``target`` on success and is removed on failure.

    A missing parent folder is created.

    Raises:
        WriteError: a write failed; ``target`` is as it was before.
    """
    unfinished = unfinished_path(target)
    with _one_sentence(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            put_in_place(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)  # absent once it is in place


def write_text(target: Path, text: str) -> None:
    r"""Write a UTF-8 text file atomically; see ``atomic_file``.

    Bytes of file names that are not UTF-8 are written as ``\udce9``, which JSON readers turn back into the same name.
    """
    with atomic_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Temporary folder to write into, which replaces ``target`` on success and is removed on failure.

    Raises:
        WriteError: a write failed; ``target`` is as it was before.
    """
    unfinished = unfinished_path(target)
    with _one_sentence(target):
        try:
            restore(target)
            remove_leftovers(target)
            unfinished.mkdir(parents=True)
            yield unfinished
            for path in (*unfinished.rglob("*"), unfinished):
                _flush(path)
            _replace(unfinished, target)
            _flush(target.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # absent once it is in place


def unfinished_path(target: Path) -> Path:
    """Temporary path beside ``target``, unique across processes and hosts."""
    return target.with_name(f"{UNFINISHED}{_short(target.name)}-{secrets.token_hex(8)}")


def _short(name: str) -> str:
    """File names end at 255 bytes; names that begin alike stay apart."""
    return name if len(name) <= 48 else f"{name[:39]}-{zlib.crc32(name.encode(errors='replace')):08x}"


def restore(target: Path) -> None:
    """Give a folder its name back if a process was killed while replacing it; readers call this before they look."""
    if os.path.lexists(target):
        return
    for path in sorted(_temporary(REPLACED, target), key=_age)[:1]:
        with suppress(OSError):  # not writable, or another process restores it, too
            path.rename(target)


def put_in_place(unfinished: Path, target: Path) -> None:
    """Flush a finished file to disk and rename it to ``target``."""
    _flush(unfinished)
    unfinished.replace(target)
    _flush(target.parent)


@contextmanager
def _one_sentence(target: Path) -> Iterator[None]:
    try:
        yield
    except WriteError:
        raise
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        raise WriteError(f"cannot write {target}: {reason}; what was saved before is untouched") from error


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left behind while writing ``target``, but nothing that may still be in use."""
    for path in (*_temporary(UNFINISHED, target), *_temporary(REPLACED, target)):
        if _age(path) > LEFTOVER_SECONDS:
            _remove(path)


def _temporary(prefix: str, target: Path) -> list[Path]:
    names = re.compile(re.escape(f"{prefix}{_short(target.name)}-") + "[0-9a-f]+")
    return [path for path in target.parent.glob(f"{prefix}*") if names.fullmatch(path.name)]


def _age(path: Path) -> float:
    """Seconds since a path was written to; of a folder that was moved aside, since then."""
    with suppress(OSError):
        stat = path.lstat()
        return time.time() - (stat.st_ctime if path.name.startswith(REPLACED) else stat.st_mtime)
    return 0.0  # another process has just removed it


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _replace(source: Path, target: Path) -> None:
    """Rename a folder over another one, which ``rename`` alone refuses; of several processes the last one wins."""
    replaced: list[Path] = []
    try:
        while True:
            try:
                source.rename(target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.is_symlink():
                    raise
            aside = target.with_name(unfinished_path(target).name.replace(UNFINISHED, REPLACED, 1))
            with suppress(FileNotFoundError):  # another process has just moved it out of the way
                target.rename(aside)
                replaced.append(aside)
    except OSError:
        restore(target)
        raise
    for path in replaced:
        with suppress(FileNotFoundError):  # another process has taken it back
            rest = unfinished_path(target)
            path.rename(rest)  # what is half removed must not be restored
            _remove(rest)


def _flush(path: Path) -> None:
    """Flush a file's or folder's present content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)
