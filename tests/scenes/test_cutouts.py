"""The cut-out library: what is kept, how it is cropped, what a subset shares."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from semhitok.scenes.cutout_readers import Candidate
from semhitok.scenes.cutouts import CutOutLibrary, build_library, clean, cutout_library


def _candidate(path: Path) -> Candidate:
    return Candidate(path, "package", "thing", "tool", "clip-art", "CC0-1.0", "")


def _draw(path: Path, size: tuple[int, int], box: tuple[int, int, int, int], fill: tuple[int, ...]) -> Candidate:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse(box, fill=fill)
    image.save(path)
    return _candidate(path)


def test_crops_to_what_is_visible(tmp_path: Path) -> None:
    cleaned = clean(_draw(tmp_path / "a.png", (200, 150), (30, 40, 129, 99), (250, 20, 20, 255)), 256)
    assert cleaned is not None
    width, height, pixels = cleaned
    assert (width, height) == (100, 60)  # an ellipse's box includes both ends
    alpha = np.frombuffer(pixels, np.uint8).reshape(height, width, 4)[..., 3]
    assert alpha.any(axis=0).all()
    assert alpha.any(axis=1).all()


def test_large_pictures_are_reduced_small_ones_kept(tmp_path: Path) -> None:
    large = clean(_draw(tmp_path / "a.png", (400, 300), (0, 0, 399, 199), (250, 20, 20, 255)), 100)
    small = clean(_draw(tmp_path / "b.png", (80, 60), (0, 0, 79, 59), (250, 20, 20, 255)), 100)
    assert large is not None
    assert small is not None
    assert large[:2] == (100, 50)
    assert small[:2] == (80, 60)


@pytest.mark.parametrize(
    ("size", "box", "fill", "why"),
    [
        ((60, 60), (0, 0, 29, 29), (250, 0, 0, 255), "too small"),
        ((400, 60), (0, 0, 399, 49), (250, 0, 0, 255), "too long"),
        ((80, 80), (0, 0, 79, 79), (0, 0, 0, 255), "a black silhouette"),
        ((80, 80), (0, 0, 79, 79), (250, 0, 0, 10), "nothing visible"),
    ],
)
def test_unsuitable_pictures_are_dropped(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int], fill: tuple[int, ...], why: str
) -> None:
    assert clean(_draw(tmp_path / "a.png", size, box, fill), 256) is None, why


def test_a_picture_with_its_own_ground_is_dropped(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (250, 0, 0)).save(tmp_path / "a.png")
    assert clean(_candidate(tmp_path / "a.png"), 256) is None


def test_a_broken_picture_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert clean(_candidate(tmp_path / "a.png"), 256) is None


def test_duplicates_are_stored_once(tmp_path: Path) -> None:
    one = _draw(tmp_path / "a.png", (80, 60), (0, 0, 79, 59), (250, 20, 20, 255))
    two = _draw(tmp_path / "b.png", (80, 60), (0, 0, 79, 59), (250, 20, 20, 255))
    build_library(tmp_path / "library", [one, two], side=256, workers=1)
    assert (tmp_path / "library/pixels.bin").stat().st_size == 80 * 60 * 4


def test_reads_back_the_pixels(cutouts: CutOutLibrary) -> None:
    for entry in cutouts.entries[::7]:
        image = cutouts.image(entry)
        assert image.size == (entry.width, entry.height)
        assert image.getpixel((entry.width // 2, entry.height // 2))[1:] == (0, 0, 255)  # pyright: ignore
        assert image.getpixel((0, 0))[3] == 0  # pyright: ignore


def test_a_subset_shares_the_file_and_survives_pickling(cutouts: CutOutLibrary) -> None:
    part = pickle.loads(pickle.dumps(cutouts.subset(lambda entry: entry.concept == "owl")))
    assert part.concepts == ("owl",)
    assert part.category_of == {"owl": "animal"}
    assert np.array_equal(np.asarray(part.image(part.entries[0])), np.asarray(cutouts.image(part.entries[0])))


def test_concepts_are_weighted_by_the_size_of_their_category(cutouts: CutOutLibrary) -> None:
    weights = dict(zip(cutouts.concepts, np.diff(cutouts.concept_distribution, prepend=0.0), strict=True))
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["bus"] / weights["owl"] == pytest.approx(3**0.5)  # one vehicle, three animals


def test_nothing_fetched_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="semhitok data fetch"):
        cutout_library(tmp_path)
