"""Do tokenizers train alike on 1, 2 and 4 processes? Losses and ids at the same global batch.

    python -m benchmarks.data_parallel [--steps 20] [--ranks 2 4]

Tiny models of all kinds (gloo, fp32), from the same weights on the same images, with codebook initialisation and dead-code
replacement within the run. Losses must stay within 1e-4 of one process and 99.9 % of the ids after the last step must be equal. What is drawn at random
for each rank is off: the discriminator's augmentations, drop path. Also printed: how many buckets of gradients were on their way before the
backward pass had ended.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.ranks import run_ranks
from tests.tiny import optimizer, pixel_config, pixels, semantic_config, tiny_feed, tiny_model
from tests.tiny_unitok_training import captioned_feed, unitok_model, unitok_task
from tests.tiny_vit import tiny_vit, tiny_vit_recipe
from torch import nn

from semhitok import distributed
from semhitok.distributed import gradients
from semhitok.training.state import TrainState
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.training.tasks.vit import ViTTask

BATCH, TOLERANCE, EQUAL_IDS = 8, 1e-4, 0.999
DISCRIMINATOR = optimizer(1e-4, beta1=0.5, weight_decay=0.0)
"""At the tests' 1e-3 the hinge loss is 0 after four steps, and Adam makes steps of full size out of what rounding leaves of its gradient."""
Found = dict[str, dict[str, Any]]


def models() -> dict[str, nn.Module]:
    """Made before the ranks join: they are fitted to data, which would be a collective."""
    return {
        "semantic": tiny_model(),
        "pixel": tiny_model(),
        "pixel with discriminator": tiny_model(),
        "unitok": unitok_model(),
        "vit": tiny_vit("vqgan"),
    }


def tasks(of: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """The task of each model; the discriminator's weights are drawn from the same seed."""
    vit = tiny_vit_recipe("vqgan", adversarial_weight=0.0, perceptual_weight=0.0).reconstruction.task
    return {
        "semantic": lambda: SemanticTask(of["semantic"], semantic_config()),
        "pixel": lambda: PixelTask(of["pixel"], pixel_config(adversarial_weight=0.0), fresh_codebook=True),
        "pixel with discriminator": lambda: PixelTask(
            of["pixel with discriminator"],
            pixel_config(diffaug=False, discriminator_optimizer=DISCRIMINATOR),
            fresh_codebook=True,
        ),
        "unitok": lambda: unitok_task(of["unitok"], fresh_codebook=True, adversarial_weight=0.0),
        "vit": lambda: ViTTask(of["vit"], vit),
    }


def measure(of: Mapping[str, Any], steps: int) -> Found:
    """Losses (of the global batch), ids of some images after the last step, and buckets sent during backward passes and in all."""
    found = {}
    for name, build in tasks(of).items():
        torch.manual_seed(0)
        task, state, losses = build(), TrainState(total_steps=steps), []
        batches = (captioned_feed() if name == "unitok" else tiny_feed()).batches(
            0, BATCH, distributed.rank(), distributed.world_size()
        )
        counts = [0, 0]
        usual = gradients._Averaging.finish

        def counting(averaging: Any, counts: list[int] = counts, usual: Callable[[Any], None] = usual) -> None:
            counts[0] += averaging._next
            counts[1] += len(averaging._buckets)
            usual(averaging)

        gradients._Averaging.finish = counting  # type: ignore[method-assign]
        for _ in range(steps):
            state.seed_step(distributed.rank())
            values = task.step([next(batches)], state)
            losses.append(distributed.average_values({"loss": float(values["loss"])})["loss"])
            state.step, state.samples = state.step + 1, state.samples + BATCH
        gradients._Averaging.finish = usual  # type: ignore[method-assign]
        with torch.no_grad():
            model = of[name].eval()
            ids = (
                model.semantic.quantizer(model.semantic.projection(model.teacher_features(pixels(64)))).ids
                if (name == "semantic")
                else model.encode(pixels(64)).ids
            )
        found[name] = {"losses": losses, "ids": ids.flatten().tolist(), "buckets": counts}
    return found


def work(rank: int, world: int, folder: Path, steps: int) -> None:
    """One rank."""
    torch.set_num_threads(1)
    gradients.BUCKET_BYTES = 4096  # several buckets for tiny models
    of = models()
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / f'store_{world}'}", rank=rank, world_size=world)
    found = measure(of, steps)
    if rank == 0:
        (folder / f"{world}.json").write_text(json.dumps(found))
    distributed.destroy_distributed()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit code 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args(arguments)
    good = True
    with tempfile.TemporaryDirectory() as name:
        for world in (1, *options.ranks):
            if not run_ranks(work, [(rank, world, Path(name), options.steps) for rank in range(world)]):
                return 1
        one = json.loads((Path(name) / "1.json").read_text())
        print(
            "| ranks | trained | largest relative difference of the loss | equal ids | buckets sent during the backward pass |"
        )
        print("|---|---|---|---|---|")
        for world in options.ranks:
            for what, found in json.loads((Path(name) / f"{world}.json").read_text()).items():
                pairs = zip(found["losses"], one[what]["losses"], strict=True)
                largest = max(abs(a - b) / abs(b) for a, b in pairs)
                equal = sum(a == b for a, b in zip(found["ids"], one[what]["ids"], strict=True)) / len(found["ids"])
                early, count = found["buckets"]
                print(f"| {world} | {what} | {largest:.1e} | {100 * equal:.2f} % | {early} of {count} |")
                good = good and largest <= TOLERANCE and equal >= EQUAL_IDS
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
