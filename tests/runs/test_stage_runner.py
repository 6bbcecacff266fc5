"""What all systems' runs have in common: time limits, what counts as finished, an export that is written once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import loop_config, run_tiny
from tests.tiny_unitok_training import run_tiny_unitok, save_captioned, tiny_unitok_recipe

from semhitok.inference.loading import newest_model
from semhitok.recipes import LANGUAGE_RECIPES, RECIPES, UNITOK_RECIPES, Recipe
from semhitok.runs.semhitok import COSTS
from semhitok.runs.stage_runner import with_time_limit
from semhitok.storage import atomic
from semhitok.storage.lock import LockedError, locked_directory
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.types import LANGUAGE_STAGES, STAGES


def limits(recipe, stages) -> list[float | None]:
    return [recipe.stage(stage).loop.max_seconds for stage in stages]


def test_a_time_limit_is_shared_by_cost():
    recipe = RECIPES["nano"]()
    shared = with_time_limit(recipe, {stage: COSTS[stage] for stage in STAGES}, 100)
    assert limits(shared, STAGES) == pytest.approx([10, 45, 25, 20])
    alone = with_time_limit(recipe, {"pixel": COSTS["pixel"]}, 90)
    assert limits(alone, STAGES) == [None, 90, None, None]
    assert limits(with_time_limit(recipe, {"joint": COSTS["joint"]}, 90), ("joint", "decoder")) == [90, None]
    assert limits(with_time_limit(UNITOK_RECIPES["unitok_nano"](), {"unitok": 1.0}, 90), ("unitok",)) == [90]
    language = with_time_limit(LANGUAGE_RECIPES["mllm_nano"](), {"align": 1, "sft": 3}, 100)
    assert limits(language, LANGUAGE_STAGES) == [None, None, 25, None, 75]


def test_only_unfinished_stages_share_the_time(recipe: Recipe, finished: Path, inputs: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "decoder")
    run_tiny(recipe, inputs / "images", run, max_seconds=600)
    written = json.loads((run / "decoder" / "recipe.json").read_text())
    assert [written[stage]["loop"]["max_seconds"] for stage in ("pixel", "decoder")] == [None, 600]


def test_an_interrupted_run_is_not_finished_because_it_started_from_a_finished_one(tmp_path: Path):
    images, recipe = save_captioned(tmp_path / "images"), tiny_unitok_recipe()
    first, second = tmp_path / "first", tmp_path / "second"
    assert run_tiny_unitok(replace(recipe, loop=loop_config(steps=1)), images, first).finished
    short = replace(recipe, loop=loop_config(max_seconds=1e-6))
    assert run_tiny_unitok(short, images, second, start_from=first / "model").interrupted
    assert (second / "model" / "model.safetensors").exists()
    assert not stage_is_finished(second, "unitok")
    state = run_tiny_unitok(recipe, images, second, start_from=first / "model")
    assert (state.finished, state.step) == (True, recipe.loop.steps)
    assert json.loads((second / "model" / "config.json").read_text())["stages"] == ["unitok", "unitok"]


def test_a_stage_whose_weights_are_gone_is_not_finished(recipe: Recipe, finished: Path, inputs: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "decoder" / "model" / "model.safetensors").unlink()
    assert not stage_is_finished(run / "decoder", "decoder")
    assert run_tiny(recipe, inputs / "images", run).finished
    assert stage_is_finished(run / "decoder", "decoder")


def test_only_whole_weights_make_a_finished_stage(finished: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished / "decoder", tmp_path / "run"))
    model = run / "model"
    whole = (model / "model.safetensors").read_bytes()
    shards = [model / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]

    def is_finished() -> bool:
        return stage_is_finished(run, "decoder")

    assert is_finished()
    (model / "model.safetensors").write_bytes(whole[:-1])
    assert not is_finished()
    (model / "model.safetensors").rename(model / "projector.safetensors")  # weights, but not the model's
    assert not is_finished()
    for shard in shards:
        shard.write_bytes(whole)
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0].name, "b": shards[1].name}}))
    assert is_finished()
    shards[1].write_bytes(b"")
    assert not is_finished()
    shards[1].unlink()
    assert not is_finished()
    for broken in ("", "[]", "{}", '{"weight_map": {}}'):
        index.write_text(broken)
        assert not is_finished()
    index.unlink()
    (model / "model.safetensors").write_bytes(whole)
    assert is_finished()
    for broken in ("", "{", "[]", "{}", '{"stages": "decoder"}'):
        (model / "config.json").write_text(broken)
        assert not is_finished()


def test_readers_find_a_model_whose_replacement_was_killed(finished: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    aside = run / "decoder" / f"{atomic.REPLACED}model-0123456789abcdef"
    (run / "decoder" / "model").rename(aside)
    assert newest_model(run) == run / "decoder" / "model"
    (run / "decoder" / "model").rename(aside)
    assert stage_is_finished(run / "decoder", "decoder")
    (run / "decoder" / "model").rename(aside)
    assert newest_model(run / "decoder" / "model") == run / "decoder" / "model"
    assert not aside.exists()


def test_a_second_run_in_a_folder_is_refused_in_one_sentence(recipe: Recipe, inputs: Path, tmp_path: Path, monkeypatch):
    with (
        locked_directory(tmp_path / "run"),
        pytest.raises(LockedError, match=r"^another run is at work in .*/run \(process \d+ on .*\): wait until .*$"),
    ):
        run_tiny(recipe, inputs / "images", tmp_path / "run", ("semantic",))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock"]
    monkeypatch.setattr("semhitok.storage.lock.fcntl", None)
    said: list[str] = []
    run_tiny(recipe, inputs / "images", tmp_path / "run", ("semantic",), report=said.append)
    assert said[0] == f"{tmp_path / 'run'} cannot be locked: start no second run in it"


def test_the_model_of_a_finished_stage_is_written_once(
    recipe: Recipe, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What takes the folder's name is whole: stages and provenance are in it before it is renamed."""
    renamed = []
    replace_folder = atomic._replace

    def record(source: Path, target: Path) -> None:
        if target.name == "model":
            renamed.append(json.loads((source / "config.json").read_text()))
        replace_folder(source, target)

    monkeypatch.setattr(atomic, "_replace", record)
    run_tiny(recipe, inputs / "images", tmp_path, ("semantic",))
    (config,) = renamed
    assert config["stages"] == ["semantic"]
    assert config == json.loads((tmp_path / "semantic" / "model" / "config.json").read_text())


def test_a_run_that_fails_leaves_no_model(recipe: Recipe, inputs: Path, tmp_path: Path, monkeypatch):
    def full(self, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SemanticTask, "export", full)
    with pytest.raises(ValueError, match="the disk is full"):
        run_tiny(recipe, inputs / "images", tmp_path, ("semantic",))
    assert not (tmp_path / "semantic" / "model").exists()
