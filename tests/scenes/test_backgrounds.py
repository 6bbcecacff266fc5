"""Photographs: crops against a plain resize of the original."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semhitok.scenes.backgrounds import Photograph, PhotographLibrary, build_photographs, photograph_library
from semhitok.scenes.photograph_table import GCOMPRIS_FOLDERS, LISTED, subject_from_name

HEIGHT, WIDTH = 600, 800


@pytest.fixture
def original() -> Image.Image:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    return coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


@pytest.fixture
def library(tmp_path: Path, original: Image.Image) -> PhotographLibrary:
    entry = Photograph("one", "noise", (), True, "package", "CC0-1.0", "", WIDTH, HEIGHT)
    build_photographs(tmp_path / "library", iter([(entry, original)]))
    return PhotographLibrary(tmp_path / "library", (entry,))


def test_full_resolution_crop_is_the_original(library: PhotographLibrary, original: Image.Image) -> None:
    crop = library.crop(library.entries[0], (200 / WIDTH, 120 / WIDTH, 100 / WIDTH), 60, 100)
    assert np.array_equal(np.asarray(crop), np.asarray(original.crop((200, 120, 300, 180))))


@pytest.mark.parametrize("crop_width", [150, 333, 640, 800])
def test_reduced_crop_is_close_to_a_plain_resize(
    library: PhotographLibrary, original: Image.Image, crop_width: int
) -> None:
    crop = library.crop(library.entries[0], (0.0, 0.0, crop_width / WIDTH), 75, 100)
    plain = original.resize((100, 75), Image.Resampling.BICUBIC, box=(0, 0, crop_width, crop_width * 0.75))
    difference = np.asarray(crop).astype(float) - np.asarray(plain)
    assert np.abs(difference).mean() < 3.0


def test_survives_pickling(library: PhotographLibrary) -> None:
    entry = library.entries[0]
    before = np.asarray(library.crop(entry, (0.1, 0.1, 0.5), 32, 32))
    assert np.array_equal(before, np.asarray(pickle.loads(pickle.dumps(library)).crop(entry, (0.1, 0.1, 0.5), 32, 32)))


def test_larger_photographs_are_drawn_more_often(backdrops: PhotographLibrary) -> None:
    distribution, entries = backdrops.scenery_distribution
    assert len(entries) == 10
    assert distribution[-1] == pytest.approx(1.0)
    assert len(backdrops.distribution[1]) == 12


def test_names_become_words() -> None:
    assert subject_from_name("statueofLiberty") == "statue of liberty"
    assert subject_from_name("hammer3") == "hammer"
    assert subject_from_name("red_panda") == "red panda"


def test_the_table_is_consistent() -> None:
    assert len({(listed.source, listed.path) for listed in LISTED}) == len(LISTED)
    assert len({(resource, folder) for resource, folder, *_ in GCOMPRIS_FOLDERS}) == len(GCOMPRIS_FOLDERS)


def test_nothing_fetched_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="semhitok data fetch"):
        photograph_library(tmp_path)
