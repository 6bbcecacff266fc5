"""Does sharded training of the language model equal that of one process? Losses of 1, 2 and 4 processes at the same global batch.

    python -m benchmarks.sharded_training [--steps 20] [--ranks 2 4]

A small model is trained from the same weights on the same rows: by one process, and sharded (``full``, ``hybrid``, and not at all)
among several on this machine (gloo), all parameters and LoRA. The largest relative difference of the losses must stay below 1e-4.
Hybrid sharding counts two ranks as a node.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.ranks import run_ranks
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import image_tokenizer, mllm, processor
from tests.tiny import optimizer
from tests.training.tasks.language_feed import feed

from semhitok import distributed
from semhitok.training.compilation import compile_blocks
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig, Trained
from semhitok.types import ShardKind

BATCH, RANKS_OF_A_NODE = 8, 2
TOLERANCE = 1e-4
Losses = list[float]


def task_of(kind: ShardKind, trained: Trained = "all", **changes: Any) -> LanguageTask:
    """The same tiny model on every rank, in fp32 unless ``changes`` of the configuration say otherwise."""
    model = mllm("qwen2, untied", image_tokenizer())
    config = LanguageConfig(
        **({"optimizer": optimizer(), "trained": trained, "precision": "fp32", "lora_rank": 2} | changes)
    )
    torch.manual_seed(1)  # the low-rank matrices
    return LanguageTask(
        model, config, processor=processor(model), mesh=distributed.shard_mesh(kind, torch.device("cpu"))
    )


def take(
    task: LanguageTask, scenes: Path, steps: int, state: TrainState | None = None, accumulation: int = 1
) -> Losses:
    """Losses of the global batch, each the mean over the ranks."""
    state = state or TrainState(total_steps=steps)
    source, found = feed(task.model, scenes), []
    batches = source.batches(state.samples, BATCH, distributed.rank(), distributed.world_size())
    for _ in range(steps):
        values = task.step(next(batches).split(accumulation), state)
        found.append(distributed.average_values({"loss": float(values["loss"])})["loss"])
        state.step, state.samples = state.step + 1, state.samples + BATCH
    return found


def compare(scenes: Path, steps: int) -> dict[str, Losses]:
    """Losses by setting, on the ranks that call it."""
    found = {}
    for kind in ("none", "full", "hybrid"):
        for trained in ("all", "lora"):
            found[f"{trained}, {kind}"] = take(task_of(kind, trained), scenes, steps)
    found["all, hybrid, 2 micro-batches, activations recomputed"] = take(
        task_of("hybrid", checkpoint_activations=True), scenes, steps, accumulation=2
    )
    compiled = task_of("full")
    compile_blocks(compiled.model.language_model, backend="aot_eager")
    found["all, full, compiled blocks (aot_eager)"] = take(compiled, scenes, steps)
    return found


def join(rank: int, world: int, folder: Path, ranks_of_a_node: int) -> None:
    """Become one of several ranks on this machine."""
    torch.set_num_threads(1)
    image_tokenizer()  # fitted to data, which would be a collective
    os.environ["LOCAL_WORLD_SIZE"] = str(ranks_of_a_node)
    dist.init_process_group("gloo", init_method=f"file://{folder / f'store_{world}'}", rank=rank, world_size=world)


def work(rank: int, world: int, folder: Path, steps: int) -> None:
    """One rank."""
    join(rank, world, folder, RANKS_OF_A_NODE)
    found = compare(folder / "scenes", steps)
    if distributed.is_main():
        (folder / f"losses_{world}.json").write_text(json.dumps(found))
    distributed.destroy_distributed()


def differences(found: dict[str, Losses], alone: dict[str, Losses]) -> dict[str, float]:
    """The largest relative difference from one process, by setting."""
    largest = {}
    for name, losses in found.items():
        expected = alone[name.split(",")[0]]
        largest[name] = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
    return largest


def alone(scenes: Path, steps: int) -> dict[str, Losses]:
    """Losses of this process."""
    return {"all": take(task_of("none"), scenes, steps), "lora": take(task_of("none", "lora"), scenes, steps)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit code 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scenes(folder / "scenes", 24)
        expected = alone(folder / "scenes", options.steps)
        print("| ranks | setting | largest relative difference of the loss |\n|---|---|---|")
        for world in options.ranks:
            begun = time.perf_counter()
            if not run_ranks(work, [(rank, world, folder, options.steps) for rank in range(world)]):
                return 1
            found = json.loads((folder / f"losses_{world}.json").read_text())
            for setting, value in differences(found, expected).items():
                print(f"| {world} | {setting} | {value:.1e} |")
                worst = max(worst, value)
            print(f"{world} ranks: {time.perf_counter() - begun:.0f} s")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
