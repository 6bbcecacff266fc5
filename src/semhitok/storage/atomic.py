"""Atomic writes: a file or folder appears complete under its name or not at all, whatever kills the process."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

UNFINISHED = ".unfinished-"
"""Prefix of every temporary name: hidden, so that no reader mistakes it for an image, a token file or a checkpoint."""

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
    """Write a UTF-8 text file atomically; see ``atomic_file``."""
    with atomic_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Temporary folder to write into, which replaces ``target`` on success and is removed on failure.

    Raises:
        WriteError: a write failed; ``target`` is as it was before.
    """
    unfinished = unfinished_path(target)
    with _one_sentence(target):
        try:
            _remove_leftovers(target)
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
    # Shortened, as file names end at 255 bytes.
    return target.with_name(f"{UNFINISHED}{target.name[:48]}-{secrets.token_hex(8)}")


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


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left behind while writing ``target``, but nothing that may still be in use."""
    for path in target.parent.glob(f"{UNFINISHED}{glob.escape(target.name[:48])}-*"):
        with suppress(FileNotFoundError):  # another process removes it, too
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Rename a folder over another one, which ``rename`` alone refuses; of several processes the last one wins."""
    replaced: list[Path] = []
    while True:
        try:
            source.rename(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.is_symlink():
                raise
        replaced.append(unfinished_path(target))
        with suppress(FileNotFoundError):  # another process has just moved it out of the way
            target.rename(replaced[-1])
    for path in replaced:
        if path.is_symlink():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


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
