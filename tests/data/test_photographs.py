"""The test photographs of the installed packages."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from semhitok.data import photographs as module
from semhitok.data.photographs import photographs


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")
def test_finds_those_of_scikit_image() -> None:
    data = pytest.importorskip("skimage.data")
    images = photographs().images()
    assert np.array_equal(np.asarray(images["chelsea"]), data.chelsea())
    assert np.array_equal(np.asarray(images["coffee"]), data.coffee())


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_finds_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    assert np.array_equal(np.asarray(photographs().images()["china"]), datasets.load_sample_image("china.jpg"))


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_package_folder", lambda name: None)
    with pytest.raises(ValueError, match=r"semhitok\[evaluation\]"):
        photographs()
