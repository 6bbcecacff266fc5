"""A small world of made-up cut-outs and photographs, so that no test needs fetched material."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from semhitok.scenes.backgrounds import Photograph, PhotographLibrary, build_photographs
from semhitok.scenes.cutout_readers import Candidate
from semhitok.scenes.cutouts import CutOut, CutOutLibrary, build_library
from semhitok.scenes.splits import Material

THINGS = {
    "apple": "food", "banana": "food", "grey wolf": "animal", "wolf": "animal", "owl": "animal", "hammer": "tool",
    "axe": "tool", "violin": "music", "drum": "music", "bus": "vehicle", "tree": "plant",
}  # fmt: skip
STYLES = ("clip-art", "emoji", "emoji-3d", "photo")


def draw_cutout(path: Path, number: int, size: tuple[int, int] = (90, 70)) -> None:
    """An opaque red ellipse (green and blue 0) on a transparent ground."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((5, 8, size[0] - 6, size[1] - 9), fill=(200 + number % 50, 0, 0, 255))
    image.save(path)


def candidates_in(folder: Path) -> list[Candidate]:
    """Two cut-outs of every thing in every style."""
    found = []
    for concept, category in THINGS.items():
        for style in STYLES:
            for copy in range(2):
                path = folder / f"{concept}-{style}-{copy}.png"
                draw_cutout(path, len(found), (80 + len(found), 70 + copy))
                found.append(Candidate(path, f"package-{style}", concept, category, style, "CC0-1.0", "Somebody"))
    return found


@pytest.fixture(scope="session")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> CutOutLibrary:
    folder = tmp_path_factory.mktemp("cutouts")
    build_library(folder / "library", candidates_in(folder), side=96, workers=1)
    return reopen(folder / "library")


def reopen(folder: Path) -> CutOutLibrary:
    """The library as its files say."""
    import json

    return CutOutLibrary(folder, tuple(CutOut(**entry) for entry in json.loads((folder / "index.json").read_text())))


@pytest.fixture(scope="session")
def backdrops(tmp_path_factory: pytest.TempPathFactory) -> PhotographLibrary:
    """Photographs without any red: gradients of green and blue; two portraits that cannot be scenery."""
    folder = tmp_path_factory.mktemp("backdrops") / "library"
    rows, columns = np.mgrid[0:150, 0:220]
    entries, found = [], []
    for number in range(12):
        pixels = np.stack([rows * 0, (rows + 7 * number) % 256, (columns + 19 * number) % 256], -1).astype(np.uint8)
        portrait = {10: "wolf", 11: "owl"}.get(number)
        subjects = (portrait,) if portrait else ("grass",)
        name = f"place-{number}"
        entry = Photograph(name, f"place {number}", subjects, not portrait, "package", "CC0-1.0", "Else", 220, 150)
        entries.append(entry)
        found.append((entry, Image.fromarray(pixels)))
    build_photographs(folder, iter(found))
    return PhotographLibrary(folder, tuple(entries))


@pytest.fixture(scope="session")
def everything(cutouts: CutOutLibrary, backdrops: PhotographLibrary) -> Material:
    """All of it, without a split."""
    return Material(cutouts, backdrops)
