"""One process at a time in a folder, by a lock that the death of its holder releases."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semhitok.storage.atomic import WriteError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

LOCK = ".lock"
"""Name of the lock file, which stays in the folder: what counts is who holds it open."""

_held: set[int] = set()


class LockedError(ValueError):
    """Another process works in a folder; the message is one sentence for the user."""


@contextmanager
def locked_directory(directory: Path) -> Iterator[bool]:
    """Keep other processes, and other users of this function in this one, out of a folder; a missing folder is created.

    Yields whether the folder is locked: some network file systems cannot lock.

    Raises:
        LockedError: somebody else holds the lock.
        WriteError: the lock file cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise WriteError(f"cannot write {directory / LOCK}: {error}") from error
    _held.add(descriptor)
    try:
        yield _lock(descriptor, directory)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
        raise LockedError(
            f"another run is at work in {directory} ({holder}): wait until it has ended, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EBADF):
            raise
        return False
    with suppress(OSError):  # a full disk; the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return True


def _leave_to_parent() -> None:
    """A forked process would keep the lock beyond its parent's death."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
