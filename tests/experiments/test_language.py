"""Experiments with the language model: one run for each input, trained once, asked about the test scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.evaluation.scenes_on_disk import made_up_scenes, write_asked_scenes
from tests.tiny import loop_config, optimizer, tiny_model

from semhitok.data.sources import open_source
from semhitok.experiments import ABLATIONS, ExperimentContext
from semhitok.experiments.language import UnderstandingExperiment, ablation_recipe
from semhitok.recipes.language_recipe import LanguageRecipe, SmallLanguageModel

SIZE = SmallLanguageModel(
    vocab_size=300, layers=1, width=16, heads=2, key_value_heads=1, feed_forward=24, context_length=512
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    folder = tmp_path_factory.mktemp("ablation")
    tiny_model().save_pretrained(folder / "tokenizer")
    train = write_asked_scenes(folder / "train", made_up_scenes(20))
    test = write_asked_scenes(folder / "test", made_up_scenes(10, seed=1))
    (train / "dataset.json").write_text("{}")
    sources = open_source(train), open_source(test)
    device = torch.device("cpu")
    return ExperimentContext(*sources, train, test, "scenes", folder / "out", device, 10, lambda line: None, None, ())


def tiny(place: ExperimentContext, **changes: object) -> LanguageRecipe:
    recipe = ablation_recipe()
    loop = loop_config(steps=2, batch_size=2, checkpoint_every=2, log_every=1)
    parts = {
        stage: replace(
            recipe.stage(stage),
            loop=loop,
            task=replace(recipe.stage(stage).task, precision="fp32", optimizer=optimizer()),
            row_length=512,
        )
        for stage in recipe.stages
    }
    tokenizer = str(Path(place.train_folder).parent / "tokenizer")
    return replace(recipe, size=SIZE, tokenizer=tokenizer, **(parts | changes))  # type: ignore[arg-type]


def test_a_run_is_trained_once_and_its_answers_are_measured(place: ExperimentContext):
    experiment = UnderstandingExperiment("dual", tiny(place))
    found = experiment.run(place, 0)
    assert {"existence", "existence_blind", "captions", "scenes"} <= found.keys()
    assert found["existence_blind"] == 0.5
    assert found["scenes"] == 8  # the other two are bare
    log = place.runs / "dual-seed0" / "pretrain" / "metrics.jsonl"
    lines = log.read_text()
    assert experiment.run(place, 0) == found
    assert log.read_text() == lines
    assert len(list((place.directory / "cache").glob("image_ids-*.cache"))) == 1


def test_the_upper_bound_reads_features(place: ExperimentContext):
    recipe = tiny(place, adapter="single", continuous=True)
    found = UnderstandingExperiment("continuous", recipe).run(place, 0)
    assert "existence" in found
    folder = place.runs / "continuous-seed0" / "pretrain" / "model"
    assert (folder / "continuous_projector.safetensors").is_file()


def test_the_table_varies_the_input_alone():
    rows = ABLATIONS["mllm-adapters"].rows
    settings = [row.experiment.settings() for row in rows]
    adapters = ["continuous", "semantic", "pixel", "single", "dual", "dual"]
    assert [each.pop("adapter") for each in settings] == adapters
    for name in ("align", "alignment"):
        assert [each.pop(name) is None for each in settings] == [False] * 5 + [True]
    assert all(each == settings[0] for each in settings)
    assert [row.paper.get("SEED") for row in rows] == ["65.28", "62.3", None, "62.9", "63.2", None]
