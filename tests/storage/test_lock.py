"""A folder is one process's at a time, and its again after whatever killed the one before."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semhitok.storage import lock
from semhitok.storage.atomic import WriteError
from semhitok.storage.lock import LockedError, locked_directory

HOLD = """
import os, sys, time
from pathlib import Path
from semhitok.storage.lock import locked_directory
with locked_directory(Path(sys.argv[1])):
    if not os.fork():  # as a reading worker, which may live on for a while
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def enter(folder: Path) -> bool:
    with locked_directory(folder) as locked:
        return locked


def test_a_folder_is_locked_once_and_free_afterwards(tmp_path: Path):
    with locked_directory(tmp_path / "new") as locked:
        assert locked
        with pytest.raises(
            LockedError, match=rf"^another run is at work in .*new \(process {os.getpid()} on .*\): wait"
        ):
            enter(tmp_path / "new")
        assert enter(tmp_path / "other")
    assert enter(tmp_path / "new")


def test_the_death_of_the_holder_releases_the_lock_though_its_child_lives(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(LockedError, match=f"process {process.pid} on "):
            enter(tmp_path)
        process.kill()
        process.wait()
        os.kill(child, 0)
        assert enter(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_where_locks_are_not_supported_the_caller_is_told(tmp_path: Path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    assert not enter(tmp_path)
    monkeypatch.setattr(lock, "fcntl", None)
    assert not enter(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"^cannot write .*file/run/\.lock: "):
        enter(tmp_path / "file" / "run")
