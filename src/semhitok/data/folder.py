"""Image files of a folder, or listed individually."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from semhitok.data.images import IMAGE_SUFFIXES, ImageError, load_image
from semhitok.data.sample import METADATA_SUFFIXES, Sample, digest_of_lines, usable_metadata
from semhitok.storage.byte_ranges import read_file


class ImageFolder:
    """The image files of a folder, sorted by path; ``.json``, ``.txt`` and ``.cls`` of the same stem describe them.

    Args:
        path: the folder. Hidden files and folders are skipped, links are followed.
        recursive: whether to include subfolders.
        draft_side: see ``load_image``.

    Raises:
        ValueError: the path is not a folder or has no image files.
    """

    def __init__(self, path: str | os.PathLike[str], recursive: bool = True, *, draft_side: int | None = None) -> None:
        self.path, self.draft_side = Path(path), draft_side
        if not self.path.is_dir():
            raise ValueError(f"{path}: is not a folder.")
        sizes = dict(files_below(self.path, recursive))
        self._names = sorted(name for name in sizes if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
        if not self._names:
            raise ValueError(f"{path}: holds no image files (endings such as .jpg, .png, .webp).")
        self._descriptions = {name for name in sizes if PurePosixPath(name).suffix in METADATA_SUFFIXES}
        self._fingerprint = digest_of_lines(f"{name} {sizes[name]}" for name in self._names)

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return self._names[index]

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        name = self._names[index]
        image = load_image(self.path / name, draft_side=self.draft_side)
        beside = {suffix: str(PurePosixPath(name).with_suffix(suffix)) for suffix in METADATA_SUFFIXES}
        try:
            contents = {s: read_file(self.path / n) for s, n in beside.items() if n in self._descriptions}
        except OSError as error:
            raise ImageError(f"{self.path / name}: the metadata cannot be read: {error}.") from error
        return Sample(image=image, key=name, metadata=usable_metadata(contents, name, str(self.path)))


class ImageFiles:
    """Individually listed files as an ``ImageSource``."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    @property
    def fingerprint(self) -> str:
        """See ``ImageSource``."""
        return digest_of_lines(f"{file} {file.stat().st_size}" for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        """See ``ImageSource``."""
        return str(self.files[index])

    def load(self, index: int) -> Sample:
        """See ``ImageSource``."""
        return Sample(image=load_image(self.files[index]), key=self.key(index))


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Files unchanged, and folders replaced by their image files, recognised by suffix; hidden files are skipped.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there are no images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        found.extend(_pictures_in(path) if path.is_dir() else [path])
    if not found:
        raise ValueError(f"no pictures in {', '.join(map(str, paths))} (endings such as .jpg, .png, .webp)")
    return found


def files_below(folder: Path, recursive: bool = True) -> Iterator[tuple[str, int]]:
    """(path relative to the folder with forward slashes, size in bytes) of every file that is not hidden.

    Links to folders are followed, but not into a folder that they lie in, and links behind links only into folders that
    were not seen before: however they point at each other, there is an end.
    """
    links = {str(folder): 0}  # on the way to each folder that is still to come
    above = {str(folder): frozenset[tuple[int, int]]()}
    seen: set[tuple[int, int]] = set()
    for root, directories, names in os.walk(folder, followlinks=True):
        here, passed = _identity(root), links.pop(root)
        around = above.pop(root) | {here}
        seen.add(here)
        wanted = sorted(name for name in directories if not name.startswith(".")) if recursive else []
        directories.clear()
        for name in wanted:
            path = os.path.join(root, name)
            count, target = passed + os.path.islink(path), _identity(path)
            if target in around or (count > 1 and target in seen):
                continue
            seen.add(target)
            links[path], above[path] = count, around
            directories.append(name)
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _identity(path: str) -> tuple[int, int]:
    """Device and inode, which stay the same whatever links lead there."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _pictures_in(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
