"""Where does the time of a training step go, and how does ``decode`` compare with ``encode``?

    python -m benchmarks.training_parts [--quick]

Steps run through the training tasks with the recipes' precision and optimizers, all losses enabled, and the teacher in every
step (nothing is cached). Each row is a part's share of the step: a nested part counts for the inner one only, and backward
includes that of the discriminator and of the adaptive weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from benchmarks.measuring import Operation, Spread, interleaved
from benchmarks.models import random_images, random_model, recipe_named
from benchmarks.part_clock import PartClock, Wrapped, watching
from benchmarks.reporting import Report, Row, run_alone

from semhitok.data.feed import Batch
from semhitok.losses import VGGPerceptual
from semhitok.recipes import Recipe
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.state import TrainState
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask

# Recipe, batch: what two CPU cores do in seconds.
CASES = (("nano", 16), ("mini", 4), ("semhitok_256", 1))
QUICK_CASES = (("nano", 2),)
StageKind = Literal["semantic", "pixel"]
STAGES: tuple[StageKind, ...] = ("semantic", "pixel")
# Out of reach, so that no dead codes are replaced in the few measured steps.
TOTAL_STEPS = 1_000_000


def training_task(recipe: Recipe, stage: StageKind, model: SemHiTokModel) -> SemanticTask | PixelTask:
    """Stage 1, with k-means in step 0; or stage 2b with all losses from the first step."""
    if stage == "semantic":
        return SemanticTask(model, replace(recipe.semantic.task, initialise_step=0))
    perceptual = VGGPerceptual(deepest_layer=recipe.perceptual_depth).to(model.device)
    config = replace(recipe.pixel_finetune.task, perceptual_start=0, adversarial_start=0)
    return PixelTask(model, config, perceptual=perceptual)


def random_batch(batch: int, size: int, *, device: str = "cpu") -> Batch:
    """Noise in the form that a feed yields."""
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8).to(device)
    return Batch(images, torch.arange(batch).to(device), torch.zeros(batch, dtype=torch.bool).to(device), {})


def parts_of(task: SemanticTask | PixelTask) -> list[Wrapped]:
    """The methods of each part of a step."""
    model = task.model
    methods = [
        Wrapped(model.teacher, "forward", "teacher"),
        Wrapped(model.semantic.projection, "forward", "encoder"),
        Wrapped(model.semantic.quantizer, "forward", "quantizer"),
        Wrapped(torch.autograd, "backward", "backward"),
        Wrapped(torch.autograd, "grad", "backward"),
        Wrapped(task.optimizer, "step", "optimizer"),
    ]
    if isinstance(task, SemanticTask):
        quantizer = model.semantic.quantizer
        return [
            *methods,
            Wrapped(quantizer, "assignments", "quantizer"),
            Wrapped(quantizer, "update", "quantizer"),
            Wrapped(model.semantic.decoder, "forward", "decoder"),
        ]
    assert task.adversary is not None, "stage 2b of these recipes is adversarial"
    return [
        *methods,
        Wrapped(model.pixel_encoder, "forward", "encoder"),
        Wrapped(model.pixel_quantizer, "forward", "quantizer"),
        Wrapped(model.pixel_decoder, "forward", "decoder"),
        Wrapped(task.perceptual, "forward", "losses"),
        Wrapped(task.adversary.discriminator, "forward", "losses"),
        Wrapped(task.adversary.optimizer, "step", "optimizer"),
    ]


def step_parts(task: SemanticTask | PixelTask, batch: Batch, steps: int) -> list[dict[str, float]]:
    """Seconds of each part in each of ``steps`` steps, after one unmeasured step."""
    state, found = TrainState(total_steps=TOTAL_STEPS), []
    for state.step in range(steps + 1):
        state.seed_step(rank=0)
        clock = PartClock()
        with watching(clock, parts_of(task)):
            task.step([batch], state)
        found.append(clock.seconds)
    return found[1:]


def share_rows(what: str, steps: list[dict[str, float]]) -> list[Row]:
    """Rows of the parts' shares, the largest first."""
    totals = [sum(step.values()) for step in steps]
    rows = []
    for part in {part: None for step in steps for part in step}:
        seconds = [step.get(part, 0.0) for step in steps]
        shares = Spread.of([one / total for one, total in zip(seconds, totals, strict=True)])
        rows.append(Row(what, part, Spread.of(seconds), "whole step", Spread.of(totals), shares, "s"))
    return sorted(rows, key=lambda row: -row.ratio.median)


def measure(quick: bool) -> Report:
    """Decode against encode, then both kinds of steps, of each model in turn."""
    rows = []
    for name, batch in QUICK_CASES if quick else CASES:
        recipe = recipe_named(name)
        model = random_model(recipe)
        images, size = random_images(batch, model.config.image_size), model.config.image_size
        ids = model.encode(images).ids
        sides: dict[str, Operation] = {"decode": lambda model=model, ids=ids: model.decode(ids)}
        sides["encode"] = lambda model=model, images=images: model.encode(images)
        times = interleaved(sides, rounds=2 if quick else 4)
        rows.append(Row.of_times(f"`{name}`, batch {batch}", ("decode", times["decode"]), ("encode", times["encode"])))
        for stage in STAGES:
            task = training_task(recipe, stage, model)
            steps = step_parts(task, random_batch(batch, size), steps=1 if quick else 4)
            rows += share_rows(f"`{name}`, {stage} step, batch {batch}", steps)
    return Report(
        name="training_parts",
        title="decode, and the parts of a training step",
        method="Random weights; decode and encode in fp32, steps with the recipe's bf16 autocast. semantic: stage 1; pixel: "
        "stage 2b with perceptual and adversarial loss. encoder: the semantic projection, too; quantizer: lookup, loss and "
        "EMA update; losses: perceptual network and discriminator, forward; rest: the remaining losses, clipping, weight "
        "average, statistics.",
        rows=rows,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
