"""Sharded checkpoints: written by two ranks while training goes on, whole or absent, read by one rank and by two."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from benchmarks.sharded_training import join, task_of
from safetensors.torch import load_file
from tests.data.records_on_disk import write_scenes
from tests.tiny import loop_config
from tests.training.tasks.language_feed import feed
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.distributed import shard_files
from semhitok.storage.atomic import WriteError
from semhitok.training import checkpoint, loop
from semhitok.training.checkpoint_match import fill
from semhitok.training.checkpoint_writer import CheckpointWriter

WORLD, STEPS, STOP = 2, 6, 4
LOOP = loop_config(steps=STEPS, batch_size=8, checkpoint_every=2, log_every=2)


def trained(folder: Path, scenes: Path, kind: Any, stop: int | None = None, **changes: Any) -> None:
    """A run; with ``stop`` it ends after that step as if it had been killed."""
    task = task_of(kind, **changes)
    usual = task.step

    def step(microbatches: Any, state: Any) -> Any:
        if state.step == stop:
            raise KeyboardInterrupt
        return usual(microbatches, state)

    task.step = step  # type: ignore[method-assign]
    try:
        loop.train(task, feed(task.model, scenes), LOOP, folder, lock=False)
    except KeyboardInterrupt:
        assert stop is not None
    time.sleep(0 if stop is None else 2.0)  # what was begun is written by a thread


def written_while_changed(folder: Path) -> dict[str, Any]:
    """A slow write: what is stored is the state at the time of the call, and it appears under its name at the end only."""
    task, writer = task_of("full"), CheckpointWriter(folder, keep=2)
    state = task.state_dict()
    before = {name: distributed.whole_tensor(tensor.detach()).clone() for name, tensor in state["trained"].items()}
    usual, goes_on, waited = shard_files.checksum_of_file, Event(), list[bool]()

    def slow(path: Path) -> str:
        waited.append(goes_on.wait(timeout=60))
        return usual(path)

    shard_files.checksum_of_file = slow
    writer.save(7, {"task": state})  # would not come back until the time is over if it waited for the write
    with torch.no_grad():
        for parameter in task._parameters().values():
            parameter.add_(1.0)
    early = (folder / "step_00000007").exists()
    goes_on.set()
    writer.wait()
    shard_files.checksum_of_file = usual
    distributed.wait_for_all()
    path = folder / "step_00000007"
    saved = fill(checkpoint.load(path)["task"], task.state_dict(), path)
    same = [bool(torch.equal(distributed.whole_tensor(saved["trained"][name]), each)) for name, each in before.items()]
    return {"went_on": waited == [True], "early": early, "same": all(same), "count": len(same)}


def disk_full_on_the_other_rank(folder: Path) -> dict[str, Any]:
    task, writer = task_of("full"), CheckpointWriter(folder, keep=2)
    usual = shard_files.checksum_of_file

    def full(path: Path) -> str:
        if distributed.rank() == 1:
            raise OSError(28, "No space left on device")
        return usual(path)

    writer.save(1, {"task": task.state_dict()})
    writer.wait()
    shard_files.checksum_of_file = full
    writer.save(2, {"task": task.state_dict()})
    with pytest.raises(WriteError) as caught:
        writer.wait()
    shard_files.checksum_of_file = usual
    distributed.wait_for_all()
    return {"said": str(caught.value), "left": sorted(os.listdir(folder))}


def run_everything(rank: int, folder: Path) -> None:
    join(rank, WORLD, folder, ranks_of_a_node=WORLD)
    scenes = folder / "scenes"
    trained(folder / "whole", scenes, "full")
    trained(folder / "stopped", scenes, "full", stop=STOP + 1)
    distributed.wait_for_all()
    if rank == 0:
        shutil.copytree(folder / "stopped", folder / "resumed")
    distributed.wait_for_main()
    trained(folder / "resumed", scenes, "full")
    found = {"slow": written_while_changed(folder / "slow"), "full": disk_full_on_the_other_rank(folder / "full")}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    write_scenes(folder / "scenes", 24)
    start_processes(run_everything, args=(folder,), nprocs=WORLD, start_method="forkserver")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(folder: Path):
    assert sorted(path.name for path in (folder / "stopped" / "checkpoints").iterdir()) == [
        "step_00000002",
        "step_00000004",
    ]
    expected, found = weights(folder / "whole"), weights(folder / "resumed")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_each_rank_writes_its_part(folder: Path):
    path = folder / "whole" / "checkpoints" / f"step_{STEPS:08d}"
    files = sorted((path / checkpoint.SHARDS).iterdir())
    sizes = [file.stat().st_size for file in files]
    assert len(files) == WORLD
    assert max(sizes) < 0.6 * sum(sizes)
    values = (path / checkpoint.VALUES).read_text()
    assert json.loads(values)["format"] == 2


def test_one_process_goes_on_where_two_ranks_stopped(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "stopped", tmp_path / "run")
    trained(tmp_path / "run", folder / "scenes", "none")
    expected, found = weights(folder / "whole"), weights(tmp_path / "run")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    untrained = task_of("none").model.state_dict()
    assert not torch.equal(untrained["lm_head.weight"], expected["lm_head.weight"])


def test_training_goes_on_while_a_checkpoint_is_written(results: list[dict[str, Any]]):
    for result in results:
        assert result["slow"]["went_on"]
        assert not result["slow"]["early"]
        assert result["slow"]["same"]
        assert result["slow"]["count"] > 20


def test_a_full_disk_on_one_rank_is_told_by_all_and_leaves_the_earlier_checkpoint(results: list[dict[str, Any]]):
    for result in results:
        assert "cannot write" in result["full"]["said"]
        assert "No space left on device; what was saved before is untouched" in result["full"]["said"]
        assert result["full"]["left"] == ["step_00000001"]


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken(folder: Path, tmp_path: Path, damage: str):
    directory = tmp_path / "checkpoints"
    shutil.copytree(folder / "stopped" / "checkpoints", directory)
    file = next((directory / "step_00000004" / checkpoint.SHARDS).iterdir())
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    said: list[str] = []
    found = checkpoint.newest_readable(directory, said.append)
    assert found is not None
    assert found[0] == 2
    assert file.name in said[0]
    assert said[0].endswith("; the run goes on from step_00000002")


def test_a_checkpoint_of_another_recipe_is_refused(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "stopped" / "checkpoints", tmp_path / "checkpoints")
    task = task_of("none", "adapter")
    with pytest.raises(ValueError, match=r"step_00000004 is a checkpoint of another recipe: it holds /trained/model\."):
        loop.train(task, feed(task.model, folder / "scenes"), replace(LOOP, steps=9), tmp_path)
