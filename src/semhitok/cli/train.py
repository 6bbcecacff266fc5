"""``semhitok train RECIPE``: all stages of a recipe, or one, with resume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semhitok.data.sources import open_source
from semhitok.recipes import RECIPES, STAGES, Recipe, Stage, run_stages
from semhitok.training import parallel

# Under --max-seconds with several stages each gets this share of the time, about what they need at equal effort.
TIME_SHARES: dict[Stage, float] = {"semantic": 0.1, "pixel": 0.45, "pixel-finetune": 0.25, "decoder": 0.2}


@dataclass(frozen=True)
class Arguments:
    """Train a tokenizer. Run it again with the same --out to resume; every value of the recipe can be overridden."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: Path
    """Training images: a folder of images, a folder of webdataset tars, or a Hugging Face data set on disk."""
    out: Path | None = None
    """Folder of the run; runs/RECIPE by default."""
    stage: Stage | Literal["all"] = "all"
    """Which stage; all runs the unfinished ones in order."""
    split: str | None = None
    """Subfolder or split of the data."""
    start_from: Path | None = None
    """Checkpoint for the first stage that runs to start from, in place of the stage before it in --out."""
    max_seconds: float | None = None
    """Time limit: speed is measured over the first steps and the number of steps set to fit."""
    device: str | None = None
    """cpu, cuda ...; by default a GPU where there is one. Several GPUs: torchrun -m semhitok.cli.train RECIPE ..."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    defaults = {name: Arguments(recipe=recipe(), data=tyro.MISSING) for name, recipe in RECIPES.items()}
    descriptions = {name: (recipe.__doc__ or "").splitlines()[0] for name, recipe in RECIPES.items()}
    kind = tyro.extras.subcommand_type_from_defaults(defaults, descriptions, prefix_names=False)
    options: Arguments = tyro.cli(kind, args=arguments, prog="semhitok train")  # pyright: ignore
    stages: tuple[Stage, ...] = STAGES if options.stage == "all" else (options.stage,)
    recipe = options.recipe
    if options.max_seconds is not None:
        recipe = with_time_limit(recipe, stages, options.max_seconds)
    device = parallel.join_ranks(options.device)
    try:
        state = run_stages(
            recipe,
            open_source(options.data, split=options.split),
            options.out or Path("runs") / recipe.name,
            stages=stages,
            device=device,
            start_from=options.start_from,
            data_name=options.data.name,
            report=print if parallel.is_main() else lambda line: None,
        )
    finally:
        parallel.leave_ranks()
    # 128 + SIGTERM tells a scheduler that the run is to be continued.
    return 143 if state.interrupted else 0


def with_time_limit(recipe: Recipe, stages: tuple[Stage, ...], seconds: float) -> Recipe:
    """The recipe with a time limit on each of the stages."""
    total = sum(TIME_SHARES[stage] for stage in stages)
    changed = {}
    for stage in stages:
        name = stage.replace("-", "_")
        part = getattr(recipe, name)
        limit = seconds * TIME_SHARES[stage] / total
        changed[name] = replace(part, loop=replace(part.loop, max_seconds=limit))
    return replace(recipe, **changed)


if __name__ == "__main__":
    import sys

    from semhitok.cli import main as semhitok

    sys.exit(semhitok(["train", *sys.argv[1:]]))
