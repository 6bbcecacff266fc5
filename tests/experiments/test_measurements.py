"""Measurements that complete finished results: each in a section of its own, made once, from the kept model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.scenes_on_disk import made_up_scenes, write_asked_scenes
from tests.experiments.test_language import SIZE
from tests.tiny import loop_config, optimizer, tiny_model
from tests.tiny_vit import tiny_vit

from semhitok.data.sources import open_source
from semhitok.data.transforms import to_float
from semhitok.experiments import ExperimentContext, InterruptionError, results_of
from semhitok.experiments.drawing import predicted
from semhitok.experiments.language import SMALL_CODE_HEAD, train_language_model
from semhitok.experiments.measurements import Measurement, measure, measurements
from semhitok.experiments.results import Result, save_result
from semhitok.experiments.table import Ablation, Metric, Row, draw
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.scenes.truth import read_scenes

BASE = {"psnr": 20.0, "bits": 96.0}


@dataclass(frozen=True)
class Kept:
    """A finished experiment with a model on disk; it cannot be trained again."""

    name: str
    model: Path

    def settings(self) -> dict[str, Any]:
        return {"system": self.name}

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        return self.model if self.model.exists() else None

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        raise AssertionError("trained again")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> ExperimentContext:
    folder = tmp_path_factory.mktemp("measured")
    train = write_asked_scenes(folder / "train", made_up_scenes(20))
    test = write_asked_scenes(folder / "test", made_up_scenes(10, seed=1))
    (train / "dataset.json").write_text("{}")
    sources = open_source(train), open_source(test)
    return ExperimentContext(
        *sources, train, test, "scenes", folder / "out", torch.device("cpu"), 10, lines.append, None, ()
    )


def tiny(recipe: LanguageRecipe) -> LanguageRecipe:
    loop = loop_config(steps=2, batch_size=2, checkpoint_every=2, log_every=1)
    size = replace(SIZE, **{**SMALL_CODE_HEAD, "code_head_width": 16})
    for stage in recipe.stages:
        part = recipe.stage(stage)
        task = replace(part.task, precision="fp32", optimizer=optimizer())
        recipe = replace(recipe, size=size, **{stage: replace(part, loop=loop, task=task, row_length=512)})
    return recipe


def table_of(folder: Path, models: dict[str, Callable[[], Any]]) -> Ablation:
    """Finished runs of these models."""
    rows = []
    for name, make in models.items():
        make().save_pretrained(folder / name)
        rows.append(Row({"system": name}, Kept(name, folder / name)))
        save_result(folder, Result(name, 0, {"system": name}, BASE, 1.0, {}))
    metrics = (Metric("psnr", "PSNR"), Metric("answers_captions", "captions"))
    return Ablation("measured", "Measured", "", tuple(rows), metrics, "")


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}-seed0.json").read_text())


def test_sections_complete_finished_results_one_by_one(
    tmp_path: Path, place: ExperimentContext, lines: list[str], monkeypatch: pytest.MonkeyPatch
):
    known = {name: replace(each, recipe=tiny(each.recipe)) for name, each in measurements().items()}
    models = {
        "one": tiny_model,
        "several": lambda: tiny_vit("rqvae"),
        "places": lambda: tiny_model(pixel_codebook="random"),
    }
    table = table_of(tmp_path, models)
    before = read(tmp_path, "one")
    assert "sections" not in before
    chosen = [known["drawing"], known["answers"]]

    def stopped(self: Measurement, tokenizer: Path) -> Any:
        raise InterruptionError

    with monkeypatch.context() as patched:  # the command is stopped in its second measurement
        original = Measurement.of
        patched.setattr(Measurement, "of", lambda self, path: (original if path.name == "one" else stopped)(self, path))
        with pytest.raises(InterruptionError):
            measure(table, chosen, place, place, tmp_path, (0,))
    found = read(tmp_path, "one")
    assert list(found.pop("sections")) == ["drawing"]
    assert found == before
    measure(replace(table, rows=table.rows[:1]), chosen, place, place, tmp_path, (0,))
    measure(table, chosen[:1], place, place, tmp_path, (0,))
    sections = read(tmp_path, "one")["sections"]
    assert sections.keys() == {"drawing", "answers"}
    assert sections["drawing"]["metrics"].keys() == {"drawing_perplexity", "drawing_predicted_bits"}
    assert sections["answers"]["metrics"].keys() >= {"answers_captions", "answers_category", "answers_category_blind"}
    assert "tokenizer" not in sections["answers"]["settings"]
    several = read(tmp_path, "several")["sections"]["drawing"]["metrics"]
    assert several["drawing_predicted_bits"] == pytest.approx(16 * 4 * math.log2(several["drawing_perplexity"]))

    # Pixel codes that depend on the position are no input of a language model; semantic codes are.
    assert "sections" not in read(tmp_path, "places")
    assert any("drawing of places, seed 0: not measured, its features depend on the position" in line for line in lines)
    measure(table, [known["drawing-semantic"]], place, place, tmp_path, (0,))
    assert list(read(tmp_path, "places")["sections"]) == ["drawing-semantic"]
    assert "drawing-semantic" in read(tmp_path, "one")["sections"]
    assert "drawing-semantic" not in read(tmp_path, "several")["sections"]
    assert any("several, seed 0: not measured, its ids have no semantic features" in line for line in lines)

    files = {name: (tmp_path / f"{name}-seed0.json").read_bytes() for name in models}
    measure(table, [known["drawing"], known["drawing-semantic"]], place, place, tmp_path, (0,))
    assert files == {name: (tmp_path / f"{name}-seed0.json").read_bytes() for name in models}, (
        "nothing is measured twice"
    )
    captions = 100 * sections["answers"]["metrics"]["answers_captions"]
    text = draw(table, results_of(table, tmp_path, (0,)))
    assert f"| one | 20.00 | {captions / 100:.2f} | 1 |" in text

    changed = replace(known["drawing"], recipe=replace(known["drawing"].recipe, adapter="pixel"))
    with pytest.raises(
        ValueError, match=r"section drawing of .*one-seed0.json was measured with other settings \(adapter single"
    ):
        measure(table, [changed], place, place, tmp_path, (0,))
    (tmp_path / "one" / "config.json").rename(tmp_path / "config.json")
    (tmp_path / "one").rename(tmp_path / "moved")
    save_result(tmp_path, Result("one", 0, {"system": "one"}, BASE, 1.0, {}))
    measure(table, [known["drawing"]], place, place, tmp_path, (0,))
    assert any("drawing of one, seed 0: not measured, its model is not in" in line for line in lines)
    assert read(tmp_path, "one") == before


def test_perplexity_by_hand(tmp_path: Path, place: ExperimentContext):
    tiny_model().save_pretrained(tmp_path / "tokenizer")
    recipe = replace(tiny(measurements()["drawing"].recipe), tokenizer=str(tmp_path / "tokenizer"))
    model, processor, _ = train_language_model("perplexity", recipe, place, 0)
    texts = ["an owl", "two hammers and a grey wolf", "a pear"]
    images = to_float(read_scenes(place.test_folder, 32, limit=5).images[:3])
    found = predicted(model, processor, texts, images)
    nats = []
    for text, image in zip(texts, images, strict=True):  # one by one, without padding
        prompt = processor(text=text, generation_mode="image", split_special_tokens=True)["input_ids"]
        ids = model.vocabulary.visual_begin + model.image_tokenizer.encode(image[None]).ids
        with torch.no_grad():
            logits = model(input_ids=torch.cat([prompt, ids], dim=1)).logits[0]
        losses = -logits.double().log_softmax(dim=-1)[prompt.shape[1] - 1 : -1].gather(1, ids[0][:, None])
        nats.append(losses.mean().item())
    mean = sum(nats) / 3
    assert found["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert found["predicted_bits"] == pytest.approx(16 * mean / math.log(2), rel=1e-4)
