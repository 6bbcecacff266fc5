"""Two gloo ranks train like one process, stop together, and plan together."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.training.tiny_task import SignallingTask, TinyTask, tiny_feed
from torch import nn
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.data.feed import MemoryFeed
from semhitok.distributed import gradients
from semhitok.training import checkpoint
from semhitok.training.loop import LoopConfig, train
from semhitok.training.state import TrainState
from semhitok.training.task import TrainingError

WORLD = 2
CONFIG = LoopConfig(steps=8, batch_size=8, log_every=4)


def run_everything(rank: int, directory: Path) -> None:
    """All checks of one rank in one process: starting one takes longer than all of them."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{directory / 'rendezvous'}", rank=rank, world_size=WORLD)
    results = {check.__name__: check(rank, directory) for check in CHECKS}
    (directory / f"results_{rank}.json").write_text(json.dumps(results))
    distributed.destroy_distributed()


def collectives(rank: int, directory: Path) -> dict:
    # A cast keeps some parameters in another type, a transposed one has no contiguous gradient, one has none at all.
    model = nn.ParameterList(
        [torch.full((3, 2), float(rank)), torch.full((4,), float(rank)).bfloat16(), torch.zeros(1)]
    )
    for last in (False, True):  # two micro-batches, whose gradients add up
        with distributed.averaged_gradients(model, now=last):
            transposed = (model[0].t() * (torch.arange(6.0).reshape(2, 3) * (rank + 1) / 2)).sum()
            (transposed + (model[1] * rank).sum().float()).backward()
    found = [model[0].grad.tolist(), model[1].grad.tolist(), model[2].grad is None]
    distributed.broadcast_parameters(model)
    return {
        "gradients": found,
        "parameters": [parameter.flatten()[0].item() for parameter in model],
        "values": distributed.average_values({"b": 1.0 + rank, "a": 10.0 * rank}),
        "flags": distributed.any_rank(rank == 0, rank == 1, False),
        "from_main": distributed.from_main(7 + rank),
        "is_main": distributed.is_main(),
    }


def overlap(rank: int, directory: Path) -> dict:
    """How many buckets were sent when the first layer's gradient arrived, the last one; and whether one was sent twice."""
    layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(6))
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        nn.init.normal_(layer.get_parameter("weight"), generator=generator)
    inputs = torch.randn(4, 8, generator=generator)
    sent: list[int] = []
    usual = dist.all_reduce

    def counting(tensor, *arguments, **options):
        sent.append(tensor.numel())
        return usual(tensor, *arguments, **options)

    early: list[int] = []
    layers[0].get_parameter("weight").register_hook(lambda gradient: early.append(len(sent)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counting)
        patch.setattr(gradients, "BUCKET_BYTES", 2 * 8 * 8 * 4)
        with distributed.averaged_gradients(layers.parameters()):
            nn.Sequential(*layers)(inputs[2 * rank : 2 * rank + 2]).square().mean().backward()
    found: list[Any] = [layer.get_parameter("weight").grad for layer in layers]
    layers.zero_grad()
    nn.Sequential(*layers)(inputs).square().mean().backward()
    expected: list[Any] = [layer.get_parameter("weight").grad for layer in layers]
    equal = all(torch.allclose(one, other, rtol=1e-5) for one, other in zip(found, expected, strict=True))
    return {"early": early[:1], "sent": sent, "equal": equal}


def training(rank: int, directory: Path) -> dict:
    task = TinyTask(dropout=0.0)
    state = train(task, tiny_feed(), CONFIG, directory / "two")
    return {"samples": state.samples, "seen": task.seen}


class CollectiveTask(TinyTask):
    """Collects its state and exports it by collectives, as a task with sharded weights does: all ranks must take part."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.folders: list[str | None] = []

    def state_dict(self) -> dict:
        return {**super().state_dict(), "ranks": distributed.average_values({"ranks": 2.0 * distributed.rank()})}

    def export(self, directory: Path | None) -> None:
        distributed.average_values({"exported": 1.0})
        self.folders.append(None if directory is None else directory.parent.name)
        super().export(directory)


def collected(rank: int, directory: Path) -> dict:
    task = CollectiveTask()
    finished: list[bool] = []

    def on_finish(state: TrainState) -> None:
        finished.append((directory / "collected" / "model").exists())

    train(task, tiny_feed(), CONFIG, directory / "collected", on_finish=on_finish)
    # What the main rank wrote is there for all as soon as the loop returns.
    written = [(directory / "collected" / name).exists() for name in ("model/model.safetensors", "checkpoints")]
    return {"folders": task.folders, "finished": finished, "written": written}


def interrupted(rank: int, directory: Path) -> dict:
    number = signal.SIGTERM if rank == 1 else 0  # only one rank gets it; signal 0 does nothing
    state = train(SignallingTask(number, at=3), tiny_feed(), CONFIG, directory / "interrupted")
    return {"interrupted": state.interrupted, "step": state.step}


def not_finite(rank: int, directory: Path) -> str:
    with pytest.raises((TrainingError, distributed.OtherRankError)) as caught:
        train(TinyTask(broken_at=2 if rank == 1 else None), tiny_feed(), CONFIG, directory / "broken")
    return str(caught.value)


class BadFeed(MemoryFeed):
    """A feed of which only rank 1 finds something unreadable, in the batches of its second and sixth step."""

    bad: dict[str, str]

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1):
        for step, batch in enumerate(super().batches(start, batch_size, rank, world), start // batch_size):
            if rank == 1 and step in (1, 5):
                self.bad[f"{step}.png"] = "truncated"
            yield batch


def unreadable(rank: int, directory: Path) -> list[dict]:
    """What each rank knows at the end, after a stop between the two bad images, and without one."""
    found = []
    for name, stops in (("bad", (8,)), ("bad_resumed", (4, 8))):
        for steps in stops:
            feed = BadFeed(torch.zeros(16, 3, 8, 8, dtype=torch.uint8), seed=3)
            feed.bad = {}
            train(TinyTask(dropout=0.0), feed, replace(CONFIG, steps=steps), directory / name)
        found.append(feed.bad)
    return found


def refused(rank: int, directory: Path) -> list[str]:
    """What ranks say that were started differently, and ranks whose weights drift apart."""
    said = []
    other = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    for feed, config in (
        (tiny_feed(), replace(CONFIG, seed=rank)),
        (MemoryFeed(other + rank, seed=3, flip=False), CONFIG),
        (tiny_feed(), replace(CONFIG, batch_size=9)),
    ):
        with pytest.raises(ValueError, match=r"rank|batch") as caught:
            train(TinyTask(dropout=0.0), feed, config, directory / "refused")
        said.append(str(caught.value))
    task = TinyTask(dropout=0.0)
    usual = task.step

    def drifting(microbatches, state):
        if state.step == 2 and rank == 1:
            with torch.no_grad():
                task.model.decoder.weight[0] += 1e-6
        return usual(microbatches, state)

    task.step = drifting  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        train(task, tiny_feed(), replace(CONFIG, checkpoint_every=2), directory / "drifted")
    return [*said, str(caught.value)]


def digests(rank: int, directory: Path) -> list[str]:
    """Of tensors that differ between the ranks in one bit, in the order of rows, not at all, and in nothing but shards."""
    one_bit = torch.arange(6, dtype=torch.int32) ^ (rank << 30)
    rows = torch.eye(3)[[0, 2, 1]] if rank else torch.eye(3)
    named = {"bit": one_bit, "half": torch.ones(2, dtype=torch.bfloat16) + rank, "rows": rows, "same": torch.ones(2, 2)}
    named |= {"flag": torch.tensor(True), "empty": torch.zeros(0, 2), "scalar": torch.tensor(1.0 + rank)}
    return distributed.different_tensors(named.items())


CHECKS: tuple[Callable, ...] = (
    collectives,
    overlap,
    training,
    collected,
    interrupted,
    not_finite,
    unreadable,
    refused,
    digests,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    start_processes(run_everything, args=(directory,), nprocs=WORLD, start_method="spawn")
    return directory


@pytest.fixture(scope="module")
def results(directory: Path) -> list[dict]:
    return [json.loads((directory / f"results_{rank}.json").read_text()) for rank in range(WORLD)]


def test_collectives(results: list[dict]):
    for rank, result in enumerate(result["collectives"] for result in results):
        assert result["gradients"] == [[[0.0, 4.5], [1.5, 6.0], [3.0, 7.5]], [1.0] * 4, True]
        assert result["parameters"] == [0.0, 0.0, 0.0]
        assert result["values"] == {"a": 5.0, "b": 1.5}
        assert result["flags"] == [True, True, False]
        assert result["from_main"] == 7
        assert result["is_main"] == (rank == 0)


def test_gradients_are_averaged_while_the_backward_pass_goes_on(results: list[dict]):
    # Six layers in buckets of two: when the first layer's gradient comes, last of all, those of the other four are on their way.
    assert [result["overlap"] for result in results] == [{"early": [2], "sent": [128] * 3, "equal": True}] * WORLD


def test_two_ranks_train_like_two_microbatches(directory: Path, results: list[dict]):
    task = TinyTask(dropout=0.0)
    config = LoopConfig(**{**vars(CONFIG), "accumulation": 2})
    train(task, tiny_feed(), config, directory / "one")
    first, second = [load_file(directory / name / "model" / "model.safetensors") for name in ("one", "two")]
    for name in first.keys() - {"mean"}:  # the tiny task adds to its running mean once per micro-batch
        assert torch.equal(first[name], second[name]), name
    halves = [result["training"]["seen"] for result in results]
    together = [halves[rank][4 * step : 4 * step + 4] for step in range(8) for rank in range(WORLD)]
    assert list(chain.from_iterable(together)) == task.seen
    logs = [json.loads((directory / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"])


def test_every_rank_collects_the_state_and_the_main_rank_writes_it(directory: Path, results: list[dict]):
    found = [result["collected"] for result in results]
    assert found[0]["folders"] == ["collected"]
    assert found[1]["folders"] == [None]
    assert all(result["finished"] == [False] for result in found)
    assert all(result["written"] == [True, True] for result in found)
    path = checkpoint.latest(directory / "collected" / "checkpoints")
    assert path is not None
    assert checkpoint.load(path)["task"]["ranks"] == {"ranks": 1.0}


def test_a_signal_to_one_rank_stops_all_after_the_same_step(directory: Path, results: list[dict]):
    assert [result["interrupted"] for result in results] == [{"interrupted": True, "step": 4}] * WORLD
    assert [path.name for path in (directory / "interrupted" / "checkpoints").iterdir()] == ["step_00000004"]


def test_every_rank_knows_what_the_others_could_not_read(results: list[dict]):
    assert [result["unreadable"] for result in results] == [[{"1.png": "truncated", "5.png": "truncated"}] * 2] * WORLD


def test_a_broken_loss_on_one_rank_stops_all(directory: Path, results: list[dict]):
    assert results[0]["not_finite"] == "the loss of another rank is not finite in step 3"
    assert results[1]["not_finite"].startswith("loss is not finite in step 3")
    expected = next(tiny_feed().batches(2 * 8, 8, rank=1, world=WORLD))
    saved = load_file(directory / "broken" / "nan_batch_rank1.safetensors")
    assert torch.equal(saved["images"], expected.images_BCHW)
    assert not (directory / "broken" / "checkpoints").exists()


def test_ranks_that_were_started_differently_are_told_before_the_first_step(directory: Path, results: list[dict]):
    for result in results:
        seed, data, batch, _ = result["refused"]
        assert seed.startswith(
            "rank 1 was started with loop.seed 1, rank 0 with 0: start all ranks with the same recipe"
        )
        assert data.startswith("rank 1 was started with data ")
        assert batch == "batch_size 9 is not divisible by accumulation x ranks = 1 x 2"
    assert not (directory / "refused" / "metrics.jsonl").exists()


def test_ranks_that_drift_apart_stop_before_a_checkpoint_is_written(directory: Path, results: list[dict]):
    for result in results:
        assert "the ranks have drifted apart by step 4: " in result["refused"][-1]
        assert "the first is /model/decoder.weight; no checkpoint is written" in result["refused"][-1]
    assert [path.name for path in (directory / "drifted" / "checkpoints").iterdir()] == ["step_00000002"]


def test_digests_tell_one_bit_and_the_order_of_rows(results: list[dict]):
    assert [result["digests"] for result in results] == [["bit", "half", "rows", "scalar"]] * WORLD
