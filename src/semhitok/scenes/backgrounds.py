"""Photographs for backgrounds and bare crops from the fetched packages, decoded once into memory-mapped pyramids."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from semhitok.scenes.debian_copyright import read_copyright, terms_of
from semhitok.scenes.naming import with_article
from semhitok.scenes.photograph_table import (
    GCOMPRIS,
    GCOMPRIS_FOLDERS,
    GCOMPRIS_MINIMUM_PIXELS,
    LISTED,
    UPSTREAM_FOLDERS,
    subject_from_name,
)
from semhitok.scenes.qt_resources import read_resources
from semhitok.storage.atomic import atomic_directory
from semhitok.storage.cache import cache_directory
from semhitok.storage.catalogue import PACKAGES, package
from semhitok.storage.fetch import is_fetched, source_folder

DECODING = 1  # increment when the table or the decoding changes
LONGEST_SIDE = 2560  # larger photographs are first reduced: their full resolution is mostly blur
MANY_HOLDERS = 5
SMALLEST_LEVEL = 128  # pyramid levels stop above this shorter side


@dataclass(frozen=True)
class Photograph:
    """A photograph of the library.

    Attributes:
        name: unique name made of package and file.
        description: noun phrase for captions.
        subjects: concepts that may be visible in it.
        scenery: whether it can be a background; a portrait of one animal or tool cannot, as an unlabelled object.
        source: package name.
        licence, author: if known.
        width, height: size in pixels of the largest level.
    """

    name: str
    description: str
    subjects: tuple[str, ...]
    scenery: bool
    source: str
    licence: str
    author: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class PhotographLibrary:
    """Photographs and the folder of their pyramids, which subsets share."""

    folder: Path
    entries: tuple[Photograph, ...]
    _levels: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def distribution(self) -> tuple[np.ndarray, tuple[Photograph, ...]]:
        """Cumulative probabilities and entries: weight sqrt(pixels), so that large photographs give more crops."""
        return _by_size(self.entries)

    @cached_property
    def scenery_distribution(self) -> tuple[np.ndarray, tuple[Photograph, ...]]:
        """The same for photographs that can be backgrounds."""
        return _by_size(tuple(entry for entry in self.entries if entry.scenery))

    def crop(self, entry: Photograph, box: tuple[float, float, float], height: int, width: int) -> Image.Image:
        """The crop with left edge, top edge and width ``box`` (shares of the photograph's width; height follows),
        resized.

        Read from the smallest pyramid level that still has enough pixels, with an antialiased bicubic filter.
        """
        levels = self._pyramid(entry)
        chosen = levels[0]
        for level in levels:
            if level.shape[1] * box[2] >= width:
                chosen = level
        scale = chosen.shape[1]
        left, top, crop_width = (value * scale for value in box)
        crop_height = crop_width * height / width
        x0, y0 = int(left), int(top)
        x1, y1 = min(chosen.shape[1], int(left + crop_width) + 2), min(chosen.shape[0], int(top + crop_height) + 2)
        region = Image.fromarray(np.ascontiguousarray(chosen[y0:y1, x0:x1]))
        inside = (left - x0, top - y0, min(left - x0 + crop_width, x1 - x0), min(top - y0 + crop_height, y1 - y0))
        return region.resize((width, height), Image.Resampling.BICUBIC, box=inside)

    def subset(self, keep: Callable[[Photograph], bool]) -> PhotographLibrary:
        """The entries for which ``keep`` holds, over the same files."""
        return PhotographLibrary(self.folder, tuple(entry for entry in self.entries if keep(entry)))

    def _pyramid(self, entry: Photograph) -> list[np.ndarray]:
        if entry.name not in self._levels:
            flat = np.memmap(self.folder / _file_name(entry.name), dtype=np.uint8, mode="r")
            levels, offset = [], 0
            for height, width in _level_sizes(entry.height, entry.width):
                levels.append(flat[offset : offset + height * width * 3].reshape(height, width, 3))
                offset += height * width * 3
            self._levels[entry.name] = levels
        return self._levels[entry.name]

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "entries": self.entries, "_levels": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


def photograph_library(
    cache: Path | None = None, *, progress: Callable[[str], None] = lambda message: None
) -> PhotographLibrary:
    """Open the library of every photograph source in the cache; build it first if sources or rules changed.

    Raises:
        ValueError: no photograph source was fetched.
    """
    cache = cache or cache_directory()
    present = [entry.sha256 for entry in PACKAGES if entry.role == "photographs" and is_fetched(entry.name, cache)]
    if not present:
        raise ValueError(f"No photographs in {cache}; run 'semhitok data fetch' first.")
    key = hashlib.sha256(json.dumps([DECODING, LONGEST_SIDE, present]).encode()).hexdigest()[:16]
    folder = cache / "library" / f"photographs-{key}"
    if not (folder / "index.json").is_file():
        progress("decoding the photographs (once)")
        build_photographs(folder, found_photographs(cache))
    entries = json.loads((folder / "index.json").read_text())
    return PhotographLibrary(
        folder, tuple(Photograph(**{**entry, "subjects": tuple(entry["subjects"])}) for entry in entries)
    )


def build_photographs(folder: Path, found: Iterator[tuple[Photograph, Image.Image]]) -> None:
    """Write each photograph's pyramid and the index atomically."""
    entries = []
    with atomic_directory(folder) as unfinished:
        for entry, image in found:
            image = image.convert("RGB")
            if max(image.size) > LONGEST_SIDE:
                image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            with (unfinished / _file_name(entry.name)).open("wb") as sink:
                for height, width in _level_sizes(image.height, image.width):
                    sink.write(image.resize((width, height), Image.Resampling.BOX).tobytes())
            entries.append({**asdict(entry), "width": image.width, "height": image.height})
        (unfinished / "index.json").write_text(json.dumps(entries))


def found_photographs(cache: Path) -> Iterator[tuple[Photograph, Image.Image]]:
    """All listed photographs in the cache, opened, in a fixed order."""
    for source in dict.fromkeys(listed.source for listed in LISTED):
        if is_fetched(source, cache):
            yield from _listed(source, cache)
    if is_fetched(GCOMPRIS, cache):
        yield from _gcompris(cache)


def _listed(source: str, cache: Path) -> Iterator[tuple[Photograph, Image.Image]]:
    terms = _Terms(source, cache)
    for listed in LISTED:
        path = source_folder(source, cache) / listed.path
        if listed.source == source and path.is_file():
            name = f"{source}/{path.stem if path.stem[:1].isalpha() else path.parents[2].name}"
            licence, author = terms.of(listed.path)
            with Image.open(path) as image:
                yield Photograph(name, listed.description, listed.subjects, True, source, licence, author), image


def _gcompris(cache: Path) -> Iterator[tuple[Photograph, Image.Image]]:
    terms = _Terms(GCOMPRIS, cache)
    root = source_folder(GCOMPRIS, cache) / "usr/share/gcompris-qt/rcc"
    for resource, folder, scenery, shows, general in GCOMPRIS_FOLDERS:
        for inside, content in sorted(read_resources(root / f"{resource}.rcc")):
            if folder not in inside or not inside.endswith((".webp", ".jpg")):
                continue
            with Image.open(io.BytesIO(content)) as image:
                if image.mode != "RGB" or image.width * image.height < GCOMPRIS_MINIMUM_PIXELS:
                    continue
                stem = Path(inside).stem
                subject = subject_from_name(stem)
                subjects = general if shows else tuple(dict.fromkeys((subject, *general)))
                several_or_place = scenery or (subject.endswith("s") and not subject.endswith("ss"))
                description = shows or (subject if several_or_place else with_article(subject))
                name = f"{GCOMPRIS}/{resource}/{Path(inside).parent.name}/{stem}"
                licence, author = terms.of(inside)
                yield Photograph(name, description, subjects, scenery, GCOMPRIS, licence, author), image


class _Terms:
    """Licence and author of a package's images from its copyright file, or by default the package's licence."""

    def __init__(self, source: str, cache: Path) -> None:
        path = source_folder(source, cache) / "usr/share/doc" / source / "copyright"
        self.folders = UPSTREAM_FOLDERS.get(source)
        self.paragraphs = read_copyright(path) if self.folders and path.is_file() else []
        self.source = source
        self.default = package(source).licence

    def of(self, path: str) -> tuple[str, str]:
        installed, upstream = self.folders or ("", "")
        terms = terms_of(self.paragraphs, upstream + path.removeprefix(installed))
        # A general paragraph lists all contributors of the package, not this image's author.
        author = terms.author if terms.author.count(",") < MANY_HOLDERS else f"contributors of {self.source}"
        return terms.licence or self.default, author


def _by_size(entries: tuple[Photograph, ...]) -> tuple[np.ndarray, tuple[Photograph, ...]]:
    weights = np.sqrt([entry.width * entry.height for entry in entries])
    return np.cumsum(weights / weights.sum()), entries


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:20] + ".bin"


def _level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    sizes = [(height, width)]
    while min(height, width) >= 2 * SMALLEST_LEVEL:
        height, width = height // 2, width // 2
        sizes.append((height, width))
    return sizes
