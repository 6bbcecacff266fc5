"""``semhitok plan RECIPE``: what a recipe costs on a number of GPUs, before it is run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.types import ShardKind

if TYPE_CHECKING:
    from semhitok.runs.planning.plan import Options, StagePlan

GIB = 2**30


@dataclass(frozen=True)
class Arguments:
    """Plan a recipe: parameters, FLOPs, memory of a GPU, time and data of each stage, from models without weights."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe, as in semhitok train."""
    gpus: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 8
    """Number of GPUs."""
    gpu: Annotated[str, tyro.conf.arg(metavar="NAME")] = "h100"
    """Kind of GPU: a100-40gb, a100, h100, h200, b200, l40s, rtx4090 or mi300x."""
    mfu: Annotated[float, tyro.conf.arg(metavar="FRACTION")] = 0.4
    """Fraction of the GPU's peak speed that is reached, counting the model's FLOPs without recomputation."""
    shard: ShardKind = "full"
    """How a language model is divided among the GPUs, as in semhitok train."""
    gpus_per_node: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 8
    """GPUs of a node, for hybrid sharding."""
    image_kilobytes: Annotated[float, tyro.conf.arg(metavar="NUMBER")] = 100.0
    """Mean size of a stored image in kB."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    chosen = tyro.cli(Arguments, args=arguments, prog="semhitok plan", config=(tyro.conf.FlagCreatePairsOff,))
    from semhitok.runs.planning.plan import options_for, plan_recipe

    fields = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    options = options_for(**{name: value for name, value in fields.items() if name not in ("recipe", "json")})
    plans = plan_recipe(chosen.recipe, options, say=lambda stage: print(f"{stage} ...", file=sys.stderr))
    if chosen.json:
        print(json.dumps([_facts(plan) for plan in plans], indent=1))
    else:
        print("\n".join(_lines(chosen.recipe, plans, options)))
    return 0


def _facts(plan: StagePlan) -> dict:
    facts = dataclasses.asdict(plan)
    facts["stage"]["flops"], facts["memory"]["total"], facts["fits"] = plan.stage.flops, plan.memory.total, plan.fits
    return facts


def _lines(recipe: str, plans: list[StagePlan], options: Options) -> Iterator[str]:
    yield f"{recipe} on {options.gpus} x {options.gpu.name}, at {100 * options.mfu:g} % of {options.gpu.flops / 1e12:g} TFLOP/s"
    for plan in plans:
        yield ""
        yield from _of_stage(plan, options)
    hours = sum(plan.hours for plan in plans)
    yield ""
    yield f"all stages: {hours * options.gpus:,.0f} GPU-hours, {hours / 24:,.1f} days"


def _of_stage(plan: StagePlan, options: Options) -> Iterator[str]:
    stage, setting = plan.stage, plan.setting
    one = stage.unit.removesuffix("s")
    yield f"stage {stage.name}: {stage.steps:,} steps of {stage.batch_size:,} {stage.unit}"
    for part in stage.parts:
        count = f"{part.parameters / 1e6:,.1f}M" if part.parameters else ""
        flops = f"{part.flops / 1e12:,.3f} TFLOP" if part.flops else ""
        yield f"  {part.name:<34}{count:>10}  {flops}"
    yield f"  per {one}: {stage.flops / 1e12:,.3f} TFLOP; per step: {stage.flops * stage.batch_size / 1e15:,.2f} PFLOP"
    micro = stage.batch_size // (setting.gpus * setting.accumulation)
    divided = f", --shard {setting.shard}" if stage.unit == "rows" else ""
    yield f"  memory of a GPU with {micro:,} {stage.unit} at a time (accumulation {setting.accumulation}{divided}):"
    for name, size in vars(plan.memory).items():
        if size:
            yield f"    {name:<14}{size / GIB:>8,.1f} GiB"
    verdict = "fits" if plan.fits else "does not fit"
    yield f"    {'together':<14}{plan.memory.total / GIB:>8,.1f} GiB of {plan.usable / GIB:,.1f}: {verdict}"
    if plan.remedy is not None:
        words = plan.remedy[0].words(setting, stage.name, stage.unit)
        yield f"    it would fit with {words}: {plan.remedy[1].total / GIB:,.1f} GiB"
    elif not plan.fits:
        yield "    no number of micro-batches, recomputation or more GPUs makes it fit: take GPUs with more memory"
    images = plan.units_per_second * stage.images
    speed = f"{plan.units_per_second:,.1f} {stage.unit}/s"
    yield f"  {speed}{f', {images:,.0f} images/s' if stage.unit == 'rows' else ''}; {plan.hours * options.gpus:,.0f} GPU-hours, {plan.hours / 24:,.2f} days"
    yield f"  images read: {plan.read / 1e12:,.2f} TB at {images * options.image_kilobytes / 1e3:,.1f} MB/s"
    for note in stage.assumptions:
        yield f"  assumed: {note}"
