"""Files and folders that are there whole or not at all, whatever kills the process."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

UNFINISHED = ".unfinished-"


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message is one sentence for the user."""


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A folder to write into: takes the place of ``target`` when everything is written, and vanishes otherwise.

    Raises:
        CheckpointError: a write failed; ``target`` is as it was before.
    """
    unfinished = target.with_name(f"{UNFINISHED}{target.name}")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed while writing
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in (*(path for path in unfinished.rglob("*")), unfinished):
            _flush(path)
        _replace(unfinished, target)
        _flush(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        raise CheckpointError(f"cannot write {target}: {reason}; what was saved before is untouched") from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _replace(source: Path, target: Path) -> None:
    """Rename a folder over another one, which ``rename`` alone refuses."""
    if not target.exists():
        source.rename(target)
        return
    old = target.with_name(f"{UNFINISHED}old-{target.name}")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the disk hold the file's (or folder's) present content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
