"""Kills of a sharded run: at random moments, and inside the background write of a checkpoint; then it resumes and is compared.

    python -m benchmarks.sharded_kills --folder FOLDER [--seed 0] [--trials 20]

A tiny language model is trained with ``--shard full`` on two or four ranks (gloo), with a checkpoint every two steps. In each trial one
rank, or all of them, are killed: half of the time while the run is going on, half of the time at a step of writing a checkpoint. Resumed
on as many ranks, losses, rows seen and exported weights must equal the uninterrupted run's, bit for bit. Two of five trials
run on four ranks and resume on two or on one: the same rows, losses within 1e-4.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # otherwise imported in every trial
from benchmarks.interruptions import join, start
from benchmarks.sharded_training import task_of
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import image_tokenizer
from tests.tiny import loop_config
from tests.training.tasks.language_feed import feed

from semhitok import distributed
from semhitok.distributed import shard_files
from semhitok.training import checkpoint
from semhitok.training.loop import train
from semhitok.training.metrics import read_metrics

STEPS, TOLERANCE = 8, 1e-4
PATIENCE, COLLECTIVE_TIMEOUT = 900.0, 300.0
"""Seconds: a machine with other work to do takes its time, and what ends a rank here is a kill, not a timeout."""
LOOP = loop_config(steps=STEPS, batch_size=8, checkpoint_every=2, log_every=1)
POINTS: dict[str, tuple[object, str]] = {
    "shards are about to be written": (shard_files._Writer, "write_data"),
    "shards are written, without checksums": (shard_files, "checksum_of_file"),
    "all but the values are written": (checkpoint, "write_values"),
    "the checkpoint has its name, old ones are there": (checkpoint, "remove_old"),
}
MAIN_RANK_ONLY = ("all but the values are written", "the checkpoint has its name, old ones are there")


@dataclass(frozen=True)
class Strike:
    """What kills a run.

    Attributes:
        point: where in writing a checkpoint; None for a moment.
        number: the how-manieth time that it is reached, from 1.
        seconds: after the first checkpoint, for a moment.
        rank: the one that is killed; None for all.
    """

    point: str | None
    number: int
    seconds: float
    rank: int | None


def run(folder: Path, scenes: Path) -> None:
    """The whole run, resumed if it was begun; rows of each step are noted in ``rows-RANK.jsonl``."""
    folder.mkdir(exist_ok=True)
    task = task_of("full")
    usual = task.step

    def step(microbatches: Any, state: Any) -> Any:
        rows = [row for batch in microbatches for row in batch.indices_B.tolist()]
        with (folder / f"rows-{distributed.rank()}.jsonl").open("a") as file:
            file.write(json.dumps([state.step, distributed.rank(), distributed.world_size(), rows]) + "\n")
        return usual(microbatches, state)

    task.step = step  # type: ignore[method-assign]
    train(task, feed(task.model, scenes), LOOP, folder)


def armed(work: Callable[[], None], strike: Strike | None) -> Callable[[], None]:
    """``work``, in whose processes a point kills its rank, or the whole group of processes."""
    if strike is None or strike.point is None:
        return work

    def dangerous() -> None:
        owner, name = POINTS[strike.point or ""]
        usual, reached = getattr(owner, name), Counter[str]()

        def deadly(*arguments: Any, **options: Any) -> Any:
            reached[name] += 1
            if reached[name] == strike.number and strike.rank in (None, distributed.rank()):
                os.killpg(0, signal.SIGKILL) if strike.rank is None else os.kill(os.getpid(), signal.SIGKILL)
            return usual(*arguments, **options)

        setattr(owner, name, deadly)
        work()

    return dangerous


def execute(
    work: Callable[[], None], log: Path, ranks: int, strike: Strike | None = None, checkpoints: Path | None = None
) -> list[int | None]:
    """Run, and strike if there is a strike; exit codes of the ranks."""
    leader = os.fork()
    if not leader:  # a group of processes of its own, which can be killed together
        os.setpgid(0, 0)
        children = start(armed(work, strike), log, ranks, COLLECTIVE_TIMEOUT)
        if strike is not None and strike.point is None:
            while checkpoints is not None and not list(checkpoints.glob("step_*")):
                time.sleep(0.01)
            time.sleep(strike.seconds)
            for child in children if strike.rank is None else [children[strike.rank]]:
                os.kill(child, signal.SIGKILL)
        codes = join(children, until=PATIENCE)
        for child, code in zip(children, codes, strict=True):
            if code is None:
                os.kill(child, signal.SIGKILL)
        (log.parent / f"{log.name}.codes").write_text(json.dumps(codes))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1])
    if status:
        return [status] * ranks
    return json.loads((log.parent / f"{log.name}.codes").read_text())


def rows_seen(folder: Path) -> dict[int, list[int]]:
    """The rows of each step as last taken, in order of the ranks."""
    taken: dict[int, dict[int, tuple[int, list[int]]]] = {}
    for path in sorted(folder.glob("rows-*.jsonl")):
        for line in path.read_text().splitlines():
            step, rank, world, rows = json.loads(line)
            taken.setdefault(step, {})[rank] = world, rows
    found = {}
    for step, by_rank in taken.items():
        world = by_rank[0][0]  # ranks of a larger world that was killed have left theirs
        found[step] = [row for rank in range(world) for row in by_rank[rank][1]]
    return found


def losses(folder: Path) -> list[float]:
    """Of all steps, as last logged."""
    by_step = {entry["step"]: entry["loss"] for entry in read_metrics(folder / "metrics.jsonl") if "loss" in entry}
    return [by_step[step] for step in sorted(by_step)]


def compare(found: Path, expected: Path, exact: bool) -> list[str]:
    """What differs from the uninterrupted run."""
    different = [] if rows_seen(found) == rows_seen(expected) else ["rows"]
    pairs = list(zip(losses(found), losses(expected), strict=False))
    good = all(one == other if exact else abs(one - other) <= TOLERANCE * other for one, other in pairs)
    different += [] if good and len(pairs) == STEPS else ["losses"]
    if exact:
        names = sorted(path.name for path in (expected / "model").glob("*.safetensors"))
        same = all((found / "model" / name).read_bytes() == (expected / "model" / name).read_bytes() for name in names)
        different += [] if same and names else ["weights"]
    return different


def strike_of(generator: random.Random, number: int, ranks: int, seconds: float) -> Strike:
    """A moment in odd trials, a point of writing in even ones."""
    rank = None if generator.random() < 0.5 else generator.randrange(ranks)
    if number % 2:
        return Strike(None, 0, generator.uniform(0.0, 0.3) * seconds, rank)
    point = generator.choice(list(POINTS))
    return Strike(
        point, generator.randrange(1, STEPS // 2), 0.0, 0 if rank is not None and point in MAIN_RANK_ONLY else rank
    )


def campaign(folder: Path, seed: int, trials: int) -> tuple[int, Counter[str]]:
    """How many trials ended equal, and what was struck."""
    torch.set_num_threads(1)
    image_tokenizer()  # made before ranks exist, and inherited by all
    write_scenes(folder / "scenes", 24)
    generator, good, struck = random.Random(seed), 0, Counter[str]()
    whole: dict[int, tuple[Path, float]] = {}
    for number in range(trials):
        ranks = 4 if number % 5 in (3, 4) else 2
        then = ranks if ranks == 2 else generator.choice([1, 2])
        if ranks not in whole:
            begun = time.monotonic()
            codes = execute(partial(run, folder / f"whole-{ranks}", folder / "scenes"), folder / "whole.log", ranks)
            if codes != [0] * ranks:
                raise RuntimeError((folder / "whole.log").read_text()[-3000:])
            whole[ranks] = folder / f"whole-{ranks}", time.monotonic() - begun
        directory, log = folder / f"trial-{number}", folder / f"trial-{number}.log"
        strike = strike_of(generator, number, ranks, whole[ranks][1])
        work = partial(run, directory, folder / "scenes")
        killed = execute(work, log, ranks, strike, directory / "checkpoints")
        kept = sorted(path.name for path in (directory / "checkpoints").glob("step_*"))
        codes = execute(work, log, then)
        different = ["exit codes"] if codes != [0] * then else compare(directory, whole[ranks][0], then == ranks)
        what = "a random moment" if strike.point is None else strike.point
        struck[what if killed != [0] * ranks else "not hit: the run had ended"] += 1
        who = "all" if strike.rank is None else f"rank {strike.rank}"
        outcome = f"differs in {different}: {log}" if different else "equal"
        print(f"{number}: {ranks} ranks, {who}, {what}; kept {kept}; resumed on {then}: {outcome}", flush=True)
        if not different:
            good += 1
            shutil.rmtree(directory)
    return good, struck


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; exit code 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    good, struck = campaign(options.folder, options.seed, options.trials)
    for what, count in sorted(struck.items()):
        print(f"{what}: {count}")
    print(f"{good} of {options.trials} runs equal, {time.monotonic() - begun:.0f} s")
    return int(good < options.trials)


if __name__ == "__main__":
    raise SystemExit(main())
