"""Files and folders are whole or absent, for one process and for several that write the same one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semhitok.storage import atomic
from semhitok.storage.atomic import REPLACED, UNFINISHED, WriteError, atomic_directory, atomic_file, restore, write_text


def fill(folder: Path, text: str) -> None:
    with atomic_directory(folder) as unfinished:
        for name in ("a", "b"):
            (unfinished / name).write_text(text)


def break_off(target: Path) -> None:
    with atomic_file(target) as unfinished:
        unfinished.write_text("half")
        raise KeyError


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_of_any_kind_leaves_the_folder_alone(tmp_path: Path):
    for text in ("first", "second"):
        with atomic_directory(tmp_path / "model") as folder:
            (folder / "file").write_text(text)

    def break_off():
        with atomic_directory(tmp_path / "model") as folder:
            (folder / "file").write_text("third")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert (tmp_path / "model" / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path):
    target = tmp_path / "new" / "report.md"
    with atomic_file(target) as unfinished:
        unfinished.write_bytes(b"half")
        assert not target.exists()
        assert unfinished.parent == target.parent
        assert unfinished.name.startswith(".")
        assert unfinished.suffix != target.suffix
    assert target.read_bytes() == b"half"
    write_text(target, "größer\n")
    assert target.read_text(encoding="utf-8") == "größer\n"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path: Path):
    target = tmp_path / "file"
    write_text(target, "first")
    with pytest.raises(KeyError):
        break_off(target)
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failing", ["_flush", "Path.write_text", "Path.replace"])
def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path: Path, monkeypatch, failing: str):
    target = tmp_path / "report.json"
    write_text(target, "first")
    monkeypatch.setattr(f"semhitok.storage.atomic.{failing}", full)
    with pytest.raises(
        WriteError, match=r"^cannot write .*report\.json: the disk is full; what was saved before is untouched$"
    ) as raised:
        write_text(target, "second")
    monkeypatch.undo()
    assert isinstance(raised.value, OSError)
    assert isinstance(raised.value, ValueError)
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_written_for_another_reason_says_it(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*file/inside: .*(Not a directory|File exists)"):
        write_text(tmp_path / "file" / "inside", "text")
    with pytest.raises(WriteError, match=r"cannot write .*file: .*Not a directory"):
        fill(tmp_path / "file", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=r"cannot write .*folder: .*Is a directory"):
        write_text(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_temporary_names_are_never_shared_and_fit_the_file_system(tmp_path: Path):
    target = tmp_path / ("ä" * 120 + ".png")
    names = {atomic.unfinished_path(target) for _ in range(100)}
    assert len(names) == 100
    write_text(target, "a name of 244 bytes")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("write", [write_text, fill])
def test_of_several_writers_one_wins_and_nothing_else_is_left(tmp_path: Path, write):
    target = tmp_path / "target"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(target, str(number)), range(80)))
    contents = {path.read_text() for path in (target.iterdir() if target.is_dir() else [target])}
    assert len(contents) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_old_leftovers_are_removed_and_young_ones_may_still_be_written(tmp_path: Path):
    old, young, foreign = (
        tmp_path / f"{UNFINISHED}{name}" for name in ("model-0123456789abcdef", "model-0123", "other-0123456789abcdef")
    )
    for path in (old, young, foreign):
        path.mkdir()
        (path / "file").write_text("half")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    fill(tmp_path / "model", "text")
    assert sorted(tmp_path.iterdir()) == sorted([young, foreign, tmp_path / "model"])


def test_a_link_to_a_folder_is_replaced_and_its_folder_stays(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("")
    (tmp_path / "link").symlink_to("elsewhere")
    fill(tmp_path / "link", "text")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]


def test_a_file_system_that_cannot_flush_folders_is_written_to(tmp_path: Path, monkeypatch):
    def unsupported(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    write_text(tmp_path / "file", "text")
    fill(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from semhitok.storage.atomic import atomic_directory
rename = Path.rename
def killing(self, target):
    rename(self, target)
    if Path(self).name == "model":  # the folder before is out of the way, the new one not yet in place
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killing
with atomic_directory(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("second")
"""


def killed_between_renames(target: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, target], check=False).returncode == -signal.SIGKILL
    assert not target.exists()


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path):
    target = tmp_path / "model"
    fill(target, "first")
    killed_between_renames(target)
    restore(tmp_path / "other")
    restore(target)
    assert (target / "a").read_text() == "first"
    killed_between_renames(target)
    with pytest.raises(KeyError), atomic_directory(target):
        raise KeyError
    assert (target / "a").read_text() == "first"
    killed_between_renames(target)
    fill(target, "third")
    restore(target)
    assert (target / "a").read_text() == "third"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(REPLACED)] == []


def test_what_a_kill_left_beside_a_finished_folder_goes_when_it_is_old(tmp_path: Path, monkeypatch):
    aside = tmp_path / f"{REPLACED}model-0123"
    fill(tmp_path / "model", "first")
    fill(aside, "before")
    fill(tmp_path / "model", "second")
    assert aside.exists()  # of another process, which is about to remove it
    monkeypatch.setattr(atomic, "LEFTOVER_SECONDS", -1.0)
    fill(tmp_path / "model", "third")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_long_names_that_begin_alike_stay_apart(tmp_path: Path):
    one, other = (tmp_path / f"{'long' * 20}-{name}" for name in "ab")
    fill(one, "first")
    one.rename(atomic.unfinished_path(one).with_name(atomic.unfinished_path(one).name.replace(UNFINISHED, REPLACED)))
    restore(other)
    assert not other.exists()
    restore(one)
    assert (one / "a").read_text() == "first"


def test_a_rename_that_fails_leaves_the_folder_before(tmp_path: Path, monkeypatch):
    target, rename = tmp_path / "model", Path.rename
    fill(target, "first")

    def failing(self: Path, other: Path):
        if other == target and not target.exists() and self.name.startswith(UNFINISHED):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(WriteError, match="Input/output error; what was saved before is untouched"):
        fill(target, "second")
    assert (target / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]
