"""Runs of all three systems at tiny size that are interrupted in some way, resumed, and compared with one that was not.

Each process of a run is forked from this one, which has imported everything and has started no thread, so a trial costs
about as much as the training itself.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.utils.tensorboard  # otherwise imported in every trial
from tests.data.records_on_disk import write_scenes
from tests.runs.test_language import shrunk
from tests.tiny import (
    free_port,
    loop_config,
    run_tiny,
    save_images,
    save_teacher,
    tiny_model,
    tiny_options,
    tiny_recipe,
)
from tests.tiny_unitok_training import run_tiny_unitok, save_captioned, tiny_unitok_recipe

from semhitok import distributed
from semhitok.recipes import LANGUAGE_RECIPES
from semhitok.runs.language import run_language
from semhitok.training import checkpoint
from semhitok.training.metrics import read_metrics
from semhitok.training.state import TrainState

CRASHED = 77
"""Exit code of a process that ended itself at a chosen point."""
PATIENCE = 120.0
"""Seconds after which a process hangs: far more than a whole run takes."""
LANGUAGE_LOOP = {"steps": 8, "batch_size": 4, "checkpoint_every": 3, "log_every": 2}


def semhitok(inputs: Path, directory: Path) -> TrainState:
    """All four stages; k-means, dead-code replacement and the adversarial loss take part."""
    return run_tiny(tiny_recipe(inputs / "teacher"), inputs / "images", directory)


def unitok(inputs: Path, directory: Path) -> TrainState:
    """One stage on captioned images, with a text tokenizer learned from the captions."""
    return run_tiny_unitok(tiny_unitok_recipe(), inputs / "captioned", directory)


def language(inputs: Path, directory: Path) -> TrainState:
    """All three stages on scenes, with a learned text tokenizer and cached ids."""
    recipe = shrunk(LANGUAGE_RECIPES["mllm_nano"](), inputs)
    loop = loop_config(**LANGUAGE_LOOP)
    stages = {name: replace(recipe.stage(name), loop=loop) for name in recipe.stages}  # pyright: ignore
    return run_language(replace(recipe, **stages), inputs / "scenes", tiny_options(directory))


SYSTEMS: dict[str, Callable[[Path, Path], TrainState]] = {"semhitok": semhitok, "unitok": unitok, "language": language}


def prepare(inputs: Path) -> None:
    """Teacher, images, captions, tokenizer and scenes."""
    save_teacher(inputs / "teacher")
    save_images(inputs / "images")
    save_captioned(inputs / "captioned")
    tiny_model().save_pretrained(inputs / "tokenizer")
    write_scenes(inputs / "scenes", 24, broken=(5,))


@dataclass
class Outcome:
    """A trial: what was done, what differs from the uninterrupted run, and what went wrong."""

    name: str
    interruptions: int
    different: Sequence[str]
    failure: str = ""

    @property
    def good(self) -> bool:
        """Whether the run could go on and ended equal to the uninterrupted one."""
        return not self.different and not self.failure


def forked(work: Callable[[], object], log: Path) -> int:
    """The process id of a child that runs ``work``, with what it prints appended to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        torch.set_num_threads(1)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def as_rank(work: Callable[[], object], rank: int, world: int, port: int) -> Callable[[], object]:
    """``work`` as ``semhitok train`` does it under torchrun."""

    def say(error: Exception) -> int:
        traceback.print_exception(error)
        return 1

    def run() -> None:
        os.environ.update(
            {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
        )
        with distributed.ended_together(say):
            distributed.init_distributed("cpu", timeout=30)
            distributed.watch_other_ranks()
            work()
            distributed.wait_for_main()
        distributed.stop_watching()
        distributed.destroy_distributed()

    return run


def start(work: Callable[[], object], log: Path, ranks: int) -> list[int]:
    """The processes of a run."""
    if ranks == 1:
        return [forked(work, log)]
    port = free_port()
    return [forked(as_rank(work, rank, ranks, port), log) for rank in range(ranks)]


def join(children: Sequence[int], until: float = PATIENCE) -> list[int | None]:
    """Exit codes, negative for signals; None for those that still run after ``until`` seconds."""
    end, codes = time.monotonic() + until, dict[int, int]()
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            break
        time.sleep(0.002)
    return [codes.get(child) for child in children]


def finish(work: Callable[[], object], log: Path, ranks: int) -> str:
    """Run to the end; a sentence about what went wrong, or nothing."""
    children = start(work, log, ranks)
    codes = join(children)
    for child, code in zip(children, codes, strict=True):
        if code is None:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return "" if codes == [0] * ranks else f"the resumed run ended with {codes}: {log.read_text()[-2000:]}"


def results(directory: Path) -> dict[str, bytes]:
    """What a run leaves: exports, text tokenizer, caches, losses, and the tensors of the last checkpoint of each stage."""
    found: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_dir() and path.name == "checkpoints":
            latest = checkpoint.latest(path)
            assert latest is not None
            found[name] = latest.name.encode() + (latest / "tensors.safetensors").read_bytes()
        elif path.name == "metrics.jsonl":
            losses = [(entry["step"], entry["loss"]) for entry in read_metrics(path) if "loss" in entry]
            found[name] = json.dumps(losses).encode()
        elif path.is_file() and not hidden and path.parent.name in ("model", "text_tokenizer", "cache"):
            found[name] = without_dates(path) if path.name == "config.json" else path.read_bytes()
    return found


def without_dates(path: Path) -> bytes:
    """A configuration but for the days on which stages ended."""
    config = json.loads(path.read_text())
    for facts in config.get("provenance", {}).values():
        facts.pop("date", None)
    return json.dumps(config, sort_keys=True).encode()


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Names of what is not the same, byte for byte."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


class Place:
    """A folder with the inputs and the uninterrupted runs that trials are compared with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs = folder, folder / "inputs"
        folder.mkdir(parents=True, exist_ok=True)
        failure = finish(lambda: prepare(self.inputs), folder / "inputs.log", 1)
        if failure:
            raise RuntimeError(failure)
        self._uninterrupted: dict[tuple[str, int], tuple[dict[str, bytes], float]] = {}

    def uninterrupted(self, system: str, ranks: int = 1) -> tuple[dict[str, bytes], float]:
        """What the run leaves, and the seconds that it takes."""
        key = system, ranks
        if key not in self._uninterrupted:
            directory, begun = self.folder / f"{system}-{ranks}", time.monotonic()
            failure = finish(self.run(system, directory), self.folder / f"{system}-{ranks}.log", ranks)
            if failure:
                raise RuntimeError(failure)
            self._uninterrupted[key] = results(directory), time.monotonic() - begun
        return self._uninterrupted[key]

    def run(self, system: str, directory: Path) -> Callable[[], object]:
        """The whole run of a system, resumed if it was begun."""
        return lambda: SYSTEMS[system](self.inputs, directory)

    def outcome(self, name: str, interruptions: int, system: str, directory: Path, log: Path, ranks: int) -> Outcome:
        """Finish a run that was interrupted, compare it, and delete it if all is well."""
        failure = finish(self.run(system, directory), log, ranks)
        different = [] if failure else differences(results(directory), self.uninterrupted(system, ranks)[0])
        outcome = Outcome(name, interruptions, different, failure)
        if outcome.good:
            shutil.rmtree(directory)
            log.unlink()
        return outcome


def options(description: str | None, trials: int) -> argparse.ArgumentParser:
    """The options of a campaign; ``--quick`` is a short form."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--trials", type=int, default=trials, help="how many interruptions of one process")
    parser.add_argument("--two-ranks", type=int, default=trials // 5, help="how many interruptions of two ranks")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the runs")
    return parser


def report(outcomes: Sequence[Outcome], begun: float) -> int:
    """Print what was found; returns the exit code."""
    for outcome in outcomes:
        if not outcome.good:
            print(f"{outcome.name}: {outcome.failure or 'differs in ' + ', '.join(outcome.different)}")
    good = sum(outcome.good for outcome in outcomes)
    count = sum(outcome.interruptions for outcome in outcomes)
    print(f"{len(outcomes)} runs, {count} interruptions, {good} runs equal, {time.monotonic() - begun:.0f} s")
    return 0 if good == len(outcomes) else 1
