"""An error on one rank ends all of them with its one sentence; no rank waits in a collective for the main one's long work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.tiny import free_port, processes
from tests.training.tiny_task import TinyTask, tiny_feed

from semhitok import distributed
from semhitok.data.feed import Batch, MemoryFeed
from semhitok.distributed import waiting
from semhitok.storage.lock import LockedError, locked_directory
from semhitok.training.loop import LoopConfig, train

WORLD, TIMEOUT, LONG = 2, 2.0, 2.5
CONFIG = LoopConfig(steps=8, batch_size=8, log_every=4)


class Feed(MemoryFeed):
    """Fails in some way on rank 1, in its third batch, where the other rank already waits in a collective."""

    way: str

    def batches(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        for step, batch in enumerate(super().batches(start, batch_size, rank, world)):
            if rank == 1 and step == 2:
                self.fail()
            yield batch

    def fail(self) -> None:
        match self.way:
            case "data":
                raise ValueError("too many images cannot be read")
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs":
                time.sleep(60)


def run_rank(rank: int, port: int, way: str, directory: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD))

    def say(error: Exception) -> int:
        with (directory / "said").open("a") as file:
            file.write(f"{rank}: {error}\n")
        return 1

    if way == "late":  # slow imports on one rank
        time.sleep(3 * LONG * rank)
    with distributed.ended_together(say):
        distributed.init_distributed("cpu", timeout=TIMEOUT)
        distributed.watch_other_ranks()
        WAYS[way](rank, way, directory)
        (directory / f"end_{rank}").write_text(str(time.time()))
    distributed.stop_watching()
    distributed.destroy_distributed()


def in_the_feed(rank: int, way: str, directory: Path) -> None:
    feed = Feed(torch.zeros(24, 3, 8, 8, dtype=torch.uint8), seed=3)
    feed.way = way
    train(TinyTask(), feed, CONFIG, directory / "run")


def out_of_memory(rank: int, way: str, directory: Path) -> None:
    task = TinyTask()
    step = task.step

    def failing(microbatches, state):
        if rank == 1 and state.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found = step(microbatches, state)
        return found

    task.step = failing  # type: ignore[method-assign]
    train(task, tiny_feed(), CONFIG, directory / "run")


def not_a_number(rank: int, way: str, directory: Path) -> None:
    train(TinyTask(broken_at=2 if rank == 1 else None), tiny_feed(), CONFIG, directory / "run")


def alike(rank: int, way: str, directory: Path) -> None:
    train(TinyTask(), tiny_feed(), LoopConfig(steps=8, batch_size=9), directory / "run")


def late(rank: int, way: str, directory: Path) -> None:
    distributed.broadcast_parameters(TinyTask().model)


def of_the_main_rank(rank: int, way: str, directory: Path) -> None:
    def decide() -> int:
        time.sleep(0.5)
        raise ValueError("no image has a caption")

    distributed.main_decides(decide)


def stuck(rank: int, way: str, directory: Path) -> None:
    if rank == 1:
        raise ValueError("no such file")
    time.sleep(60)


def lost(rank: int, way: str, directory: Path) -> None:
    """The main rank waits for one that is no more."""
    waiting.SILENCE_SECONDS = 4.0
    distributed.wait_for_all()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.broadcast_parameters(TinyTask().model)


class SlowTask(TinyTask):
    """Takes long to export, which the main rank does alone."""

    def export(self, directory):
        time.sleep(LONG if directory is not None else 0)
        super().export(directory)


def slow(rank: int, way: str, directory: Path) -> None:
    def evaluate(task, state):
        time.sleep(LONG)
        return {}

    time.sleep(LONG * rank)  # slow data on one rank
    task = SlowTask()
    distributed.broadcast_parameters(task.model)
    train(task, tiny_feed(), CONFIG, directory / "run", evaluate=evaluate)


WAYS = {
    "data": in_the_feed,
    "killed": in_the_feed,
    "hangs": in_the_feed,
    "memory": out_of_memory,
    "nan": not_a_number,
    "alike": alike,
    "main": of_the_main_rank,
    "stuck": stuck,
    "lost": lost,
    "slow": slow,
    "late": late,
}
SENTENCES = {
    "data": "1: too many images cannot be read",
    "killed": "0: the connection to another rank was lost: it was killed, or its machine or network failed",
    "hangs": "0: another rank did not answer within the collective timeout",
    "memory": "1: out of memory in step 3 with 4 images at a time",
    "nan": "1: loss is not finite in step 3",
    "alike": "batch_size 9 is not divisible by accumulation x ranks = 1 x 2",
    "main": "0: no image has a caption",
    "stuck": "1: no such file",
    "lost": "0: rank 1 has given no sign of life for 4 s",
}


def started(way: str, directory: Path) -> list[BaseProcess]:
    port = free_port()
    directory.mkdir()
    ranks: list[BaseProcess] = [
        processes.Process(target=run_rank, args=(rank, port, way, directory)) for rank in range(WORLD)
    ]
    for process in ranks:
        process.start()
    return ranks


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, tuple[list[int | None], Path]]:
    """Exit codes and folder of each way to fail; all at once, since most of the time is waiting."""
    place = tmp_path_factory.mktemp("failures")
    ranks = {way: started(way, place / way) for way in WAYS}
    end = time.monotonic() + 60
    for process in (process for group in ranks.values() for process in group):
        process.join(max(0.0, end - time.monotonic()))
    codes = {way: [process.exitcode for process in group] for way, group in ranks.items()}
    for process in (process for group in ranks.values() for process in group if process.is_alive()):
        process.kill()
    return {way: (found, place / way) for way, found in codes.items()}


@pytest.mark.parametrize("way", SENTENCES)
def test_an_error_on_one_rank_ends_all_with_one_sentence(outcomes: dict[str, tuple[list[int], Path]], way: str):
    codes, directory = outcomes[way]
    assert codes == ([1, -signal.SIGKILL] if way in ("killed", "lost") else [1, 1])
    said = (directory / "said").read_text().splitlines()
    assert len(said) == 1
    assert SENTENCES[way] in said[0]


def test_what_the_main_rank_does_alone_may_take_longer_than_a_collective(outcomes: dict[str, tuple[list[int], Path]]):
    codes, directory = outcomes["slow"]
    assert codes == [0, 0]
    assert not (directory / "said").exists()
    written = (directory / "run" / "model" / "model.safetensors").stat().st_mtime
    assert all(float((directory / f"end_{rank}").read_text()) >= written for rank in range(WORLD))


def test_a_rank_may_start_later_than_the_collective_timeout(outcomes: dict[str, tuple[list[int], Path]]):
    codes, directory = outcomes["late"]
    assert codes == [0, 0]
    assert not (directory / "said").exists()


def test_a_rank_that_never_starts_is_told(monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "RANK": "0",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("semhitok.distributed.processes.START_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"not all ranks have started within 0\.5 s"):
        distributed.init_distributed("cpu")
    assert not dist.is_initialized()


def test_the_timeout_is_checked():
    with pytest.raises(ValueError, match="the collective timeout must be above 0 seconds, got 0"):
        distributed.init_distributed("cpu", timeout=0.0)
    assert not dist.is_initialized()


def test_alone_errors_come_through():
    def say(error: Exception) -> int:
        pytest.fail("there is nobody to end")

    with pytest.raises(ValueError, match="mine"), distributed.ended_together(say):
        raise ValueError("mine")
    assert distributed.main_decides(lambda: 3) == 3


def test_a_run_that_is_trained_directly_locks_its_folder(tmp_path: Path):
    with locked_directory(tmp_path), pytest.raises(LockedError):
        train(TinyTask(), tiny_feed(), CONFIG, tmp_path)
