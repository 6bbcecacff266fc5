"""What depends on files is decided by the main rank: the other one sees another file system, and does the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.tiny import save_images, tiny_model, tiny_options
from tests.training.tiny_task import TinyTask, tiny_feed
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.data.sources import ImageFolder
from semhitok.recipes.nano import nano
from semhitok.recipes.recipe import DataConfig
from semhitok.runs import stage_runner
from semhitok.runs.preparation import TrainingImages
from semhitok.runs.stage_runner import StageRunner
from semhitok.runs.text_tokenizers import learned_text_tokenizer
from semhitok.storage.lock import locked_directory
from semhitok.training import checkpoint
from semhitok.training.loop import LoopConfig, train

WORLD = 2


class Words:
    """Stands for a text tokenizer."""

    def __init__(self, text: str) -> None:
        self.text = text

    def save_pretrained(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_text(self.text)

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> Words:
        text = (folder / "tokenizer.json").read_text()
        if not text:
            raise Exception("EOF while parsing")
        return cls(text)


def only_on(rank: int, one: int, target: Any, name: str, stand_in: Any) -> Any:
    return patch.object(target, name, stand_in if rank == one else getattr(target, name))


def text_tokenizer(rank: int, directory: Path) -> list[str]:
    """New, found, damaged and incomplete: rank 1 believes the opposite of what is there."""
    folder, found = directory / "text_tokenizer", []
    for number, damage in enumerate((None, None, "tokenizer.json", "tokenizer_config.json")):
        dist.barrier()  # the main rank never waits by itself
        if damage and rank == 0:
            (folder / damage).write_text("") if number == 2 else (folder / damage).unlink()
        learn = partial(Words, f"learned {number}")
        for answer in (True, False):
            with only_on(rank, 1, Path, "exists", lambda path, answer=answer: answer):
                learned = learned_text_tokenizer(folder, learn, Words.load)  # type: ignore[type-var]
            found.append(learned.text)
    return found


def failing(rank: int, directory: Path) -> str:
    def fail() -> Words:
        raise ValueError("no image has a caption")

    with pytest.raises(ValueError, match=" ") as caught:
        learned_text_tokenizer(directory / "never", fail, Words.load)  # type: ignore[type-var]
    return str(caught.value)


def finished(rank: int, directory: Path) -> list[str]:
    said: list[str] = []
    options = tiny_options(directory / "run", report=said.append)
    system: Any = SimpleNamespace(options=options, recipe=nano(), folder=lambda stage: directory / "run" / stage)
    with patch.object(stage_runner, "stage_is_finished", lambda folder, stage: rank == 0):
        assert StageRunner(system).run(["one", "two"]).total_steps == 0
    return said


def locked(rank: int, directory: Path) -> str:
    system: Any = SimpleNamespace(options=tiny_options(directory / "busy"), recipe=None)
    distributed.wait_for_main()
    if rank == 0:
        with locked_directory(directory / "busy"), pytest.raises(ValueError, match=" ") as caught:
            StageRunner(system).run([])
    else:
        with pytest.raises(ValueError, match=" ") as caught:
            StageRunner(system).run([])
    return str(caught.value)


def resumed(rank: int, directory: Path) -> dict:
    """Rank 1 sees no checkpoints."""
    train(TinyTask(dropout=0.0), tiny_feed(), LoopConfig(steps=4, batch_size=8), directory / "resumed")
    task = TinyTask(dropout=0.0)
    with only_on(rank, 1, checkpoint, "_named", lambda folder: []):
        state = train(task, tiny_feed(), LoopConfig(steps=6, batch_size=8), directory / "resumed")
    return {"step": state.step, "seen": len(task.seen), "weight": task.model.encoder.weight.sum().item()}


def cached_ids(rank: int, directory: Path) -> list[Any]:
    """Rank 1 does not see at first what is cached, and must not compute ids in another way."""
    images = TrainingImages(
        ImageFolder(directory / "images"), 32, DataConfig(workers=0), directory / "cache", lambda line: None
    )
    model = tiny_model()
    images.features(model)
    with (
        only_on(rank, 1, Path, "exists", lambda path: False),
        patch.object(model, "teacher_features", lambda pixels: pytest.fail("computed again")),
    ):
        images.features(model)
        ids = images.semantic_ids(model)["semantic_ids"]
    return [list(ids.shape), int(np.asarray(ids, dtype=np.int64).sum())]


CHECKS: tuple[Callable, ...] = (text_tokenizer, failing, finished, locked, resumed, cached_ids)


def run_everything(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory / 'rendezvous'}", rank=rank, world_size=WORLD)
    results = {check.__name__: check(rank, directory) for check in CHECKS}
    (directory / f"results_{rank}.json").write_text(json.dumps(results))
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    directory = tmp_path_factory.mktemp("decisions")
    save_images(directory / "images", 8)
    start_processes(run_everything, args=(directory,), nprocs=WORLD, start_method="spawn")
    return [json.loads((directory / f"results_{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.parametrize("check", ["text_tokenizer", "finished", "cached_ids"])
def test_both_ranks_do_what_the_main_one_decides(results: list[dict], check: str):
    assert results[0][check] == results[1][check]


def test_a_text_tokenizer_that_is_not_whole_is_learned_again(results: list[dict]):
    numbers = [0, 0, 0, 0, 2, 2, 3, 3]
    assert results[0]["text_tokenizer"] == [f"learned {number}" for number in numbers]


def test_a_finished_stage_is_finished_for_all(results: list[dict]):
    assert results[1]["finished"] == ["stage one is done", "stage two is done"]


def test_a_checkpoint_that_one_rank_does_not_see_is_resumed_by_all(results: list[dict]):
    assert [(found["resumed"]["step"], found["resumed"]["seen"]) for found in results] == [(6, 2 * 4)] * WORLD
    assert results[0]["resumed"]["weight"] == results[1]["resumed"]["weight"]


def test_an_error_of_the_main_rank_ends_all(results: list[dict]):
    assert results[0]["failing"] == "no image has a caption"
    assert results[0]["locked"].startswith("another run is at work in ")
    assert [results[1][check] for check in ("failing", "locked")] == ["the main rank stopped with an error"] * 2
