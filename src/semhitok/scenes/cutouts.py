"""The cut-out library: cleaned RGBA images of single things with concept names, decoded once and memory-mapped.

On disk (``library/cutouts-KEY/`` in the cache): ``pixels.bin`` with the concatenated RGBA bytes of all images, and
``index.json``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from semhitok.data.workers import follow_parent
from semhitok.scenes.cutout_readers import Candidate, candidates
from semhitok.storage.atomic import atomic_directory
from semhitok.storage.cache import cache_directory
from semhitok.storage.catalogue import PACKAGES
from semhitok.storage.fetch import is_fetched

CLEANING = 1  # increment when the readers or the rules below change, to ignore older caches
MINIMUM_SIDE = 40
LARGEST_PIXELS = 50_000_000  # a few renderings are larger than Pillow opens without a warning
MAXIMUM_ASPECT = 4.0
COVERAGE = (
    0.15,
    0.965,
)  # opaque share of the tight box: below, thin line art; above, a picture with its own background


@dataclass(frozen=True)
class CutOut:
    """One entry of the library.

    Attributes:
        name: unique name made of package and file.
        concept: lower-case singular noun phrase.
        category: one of ``cutout_readers.CATEGORIES``.
        style: "photo", "clip-art", "emoji" or "emoji-3d".
        source: package name.
        licence: licence of this image.
        author: author if known, otherwise "".
        width, height: size in pixels.
        offset: position of its first byte in ``pixels.bin``.
    """

    name: str
    concept: str
    category: str
    style: str
    source: str
    licence: str
    author: str
    width: int
    height: int
    offset: int


@dataclass(frozen=True)
class CutOutLibrary:
    """Cut-outs and the folder of their pixels, which subsets share. Cheap to pickle: each process maps the file."""

    folder: Path
    entries: tuple[CutOut, ...]

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")

    @cached_property
    def by_concept(self) -> dict[str, tuple[CutOut, ...]]:
        """Concept to its cut-outs, in sorted order of concepts."""
        table: dict[str, list[CutOut]] = {}
        for entry in self.entries:
            table.setdefault(entry.concept, []).append(entry)
        return {concept: tuple(table[concept]) for concept in sorted(table)}

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """All concepts, sorted."""
        return tuple(self.by_concept)

    @cached_property
    def category_of(self) -> dict[str, str]:
        """Concept to category (if sources disagree, the most frequent one)."""
        return {
            concept: max(sorted({e.category for e in entries}), key=[e.category for e in entries].count)
            for concept, entries in self.by_concept.items()
        }

    @cached_property
    def concept_distribution(self) -> np.ndarray:
        """Cumulative probability of concepts, weighted by 1/sqrt(concepts in the category), so that hundreds of 'person'
        emoji do not crowd out 'sky'."""
        categories = [self.category_of[concept] for concept in self.concepts]
        weights = np.array([categories.count(category) ** -0.5 for category in categories])
        return np.cumsum(weights / weights.sum())

    def image(self, entry: CutOut) -> Image.Image:
        """The tightly cropped RGBA image."""
        size = entry.width * entry.height * 4
        return Image.frombuffer(
            "RGBA", (entry.width, entry.height), self._pixels[entry.offset : entry.offset + size], "raw", "RGBA", 0, 1
        )

    def subset(self, keep: Callable[[CutOut], bool]) -> CutOutLibrary:
        """The entries for which ``keep`` holds, over the same file."""
        return CutOutLibrary(self.folder, tuple(entry for entry in self.entries if keep(entry)))

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "entries": self.entries}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


def cutout_library(
    cache: Path | None = None,
    *,
    side: int = 256,
    workers: int = 1,
    progress: Callable[[str], None] = lambda message: None,
) -> CutOutLibrary:
    """Open the library of every cut-out source in the cache; build it first if sources or rules changed.

    Args:
        cache: the project's cache folder.
        side: longest side in pixels of stored images (they are never enlarged).
        workers: number of processes for the first build.
        progress: called when a build starts.

    Raises:
        ValueError: no cut-out source was fetched.
    """
    cache = cache or cache_directory()
    present = [entry.sha256 for entry in PACKAGES if entry.role == "cutouts" and is_fetched(entry.name, cache)]
    if not present:
        raise ValueError(f"No cut-outs in {cache}; run 'semhitok data fetch' first.")
    key = hashlib.sha256(json.dumps([CLEANING, side, present]).encode()).hexdigest()[:16]
    folder = cache / "library" / f"cutouts-{key}"
    if not (folder / "index.json").is_file():
        progress("building the cut-out library (once)")
        build_library(folder, list(candidates(cache)), side=side, workers=workers)
    entries = json.loads((folder / "index.json").read_text())
    return CutOutLibrary(folder, tuple(CutOut(**entry) for entry in entries))


def build_library(folder: Path, found: Iterable[Candidate], *, side: int, workers: int) -> None:
    """Clean the candidates and write the library's two files atomically."""
    found = list(found)
    seen: set[bytes] = set()
    entries: list[CutOut] = []
    offset = 0
    with atomic_directory(folder) as unfinished:
        with (
            (unfinished / "pixels.bin").open("wb") as sink,
            ProcessPoolExecutor(workers, initializer=follow_parent) as pool,
        ):
            for candidate, cleaned in zip(found, pool.map(clean, found, repeat(side), chunksize=16), strict=True):
                if cleaned is None:
                    continue
                width, height, pixels = cleaned
                digest = hashlib.sha256(pixels).digest()
                if digest in seen:  # the collection files some pictures under several folders
                    continue
                seen.add(digest)
                sink.write(pixels)
                fields = asdict(candidate)
                path = fields.pop("path")
                name = f"{candidate.source}/{'/'.join(path.parts[-3:])}"
                entries.append(CutOut(name=name, width=width, height=height, offset=offset, **fields))
                offset += len(pixels)
        (unfinished / "index.json").write_text(json.dumps([asdict(entry) for entry in entries]))


def clean(candidate: Candidate, side: int) -> tuple[int, int, bytes] | None:
    """Width, height and RGBA bytes of the tight crop of at most ``side`` pixels, or None if the image is unsuitable."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(candidate.path) as opened,
        ):
            if opened.width * opened.height > LARGEST_PIXELS:
                return None
            image = opened.convert("RGBA")
    except (OSError, ValueError):
        return None
    visible = np.asarray(image.getchannel("A")) > 24
    if not visible.any():
        return None
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    image = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    if min(image.size) < MINIMUM_SIDE or max(image.size) > MAXIMUM_ASPECT * min(image.size):
        return None
    if max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    array = np.asarray(image)
    opaque = array[..., 3] > 127
    if not COVERAGE[0] <= opaque.mean() <= COVERAGE[1]:
        return None
    ink = array[..., :3][opaque]
    if ink.max(axis=1).mean() < 40:  # a black silhouette is rarely recognisable
        return None
    return image.width, image.height, image.tobytes()
