"""A studio of tiny models and pictures, without its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.mllm.tiny_mllm import TEXT_SIZE, WORDS, mllm, processor
from tests.tiny import save_images, tiny_model
from tests.tiny_unitok import tiny_unitok

from semhitok.studio.workspace import Workspace


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tokenizer, a UniTok, a run of two stages and a language model."""
    folder = tmp_path_factory.mktemp("studio")
    tiny_model().save_pretrained(folder / "one")
    tiny_unitok().save_pretrained(folder / "uni")
    for seed, stage in enumerate(("pixel", "decoder")):
        tiny_model(seed, stages=[stage]).save_pretrained(folder / "run" / stage / "model")
    model = mllm()
    with torch.no_grad():  # answers in words
        model.lm_head.weight[4 + len(WORDS) : TEXT_SIZE] = 0
        model.lm_head.weight[[0, 2, 3]] = 0
    model.save_pretrained(folder / "mllm")
    processor(model).save_pretrained(folder / "mllm")
    return {name: str(folder / name) for name in ("one", "uni", "run", "mllm")}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("studio") / "pictures", count=5)


@pytest.fixture(scope="session")
def workspace(models: dict[str, str], pictures: Path) -> Workspace:
    return Workspace((models["one"],), (models["mllm"],), pictures)
