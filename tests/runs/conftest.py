from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.tiny import run_tiny, save_images, save_teacher, tiny_recipe

from semhitok.recipes import Recipe


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another process have the same order only with the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def inputs(tmp_path_factory) -> Path:
    """A folder with a teacher and images."""
    folder = tmp_path_factory.mktemp("inputs")
    save_teacher(folder / "teacher")
    save_images(folder / "images")
    return folder


@pytest.fixture(scope="package")
def recipe(inputs: Path) -> Recipe:
    return tiny_recipe(inputs / "teacher")


@pytest.fixture(scope="package")
def finished(recipe: Recipe, inputs: Path, tmp_path_factory) -> Path:
    """A run of all four stages that nothing interrupted. Not to be written to."""
    directory = tmp_path_factory.mktemp("finished")
    state = run_tiny(recipe, inputs / "images", directory)
    assert (state.finished, state.interrupted) == (True, False)
    return directory
