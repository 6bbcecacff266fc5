"""``semhitok train RECIPE``: all of a recipe, or one of its stages where it has several, with resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from semhitok import distributed
from semhitok.cli.arguments import OptionalPath, default
from semhitok.data.sources import open_source
from semhitok.recipes import (
    LANGUAGE_RECIPES,
    RECIPES,
    STAGES,
    UNITOK_RECIPES,
    LanguageRecipe,
    LanguageStageName,
    Recipe,
    Stage,
    UniTokRecipe,
)
from semhitok.runs.language import run_language
from semhitok.runs.semhitok import run_stages
from semhitok.runs.unitok import run_unitok
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.training.state import TrainState

# Under --max-seconds with several stages each gets this share of the time, about what they need at equal effort.
TIME_SHARES: dict[Stage, float] = {"semantic": 0.1, "pixel": 0.45, "pixel-finetune": 0.25, "decoder": 0.2}

# Of a language model's stages it follows from their tokens; those of stage align cost this much of what others cost.
ALIGN_COST = 0.08

HELP_ALL = "--help-all"  # a recipe has over a hundred values


@dataclass(frozen=True)
class Run:
    """On what, where, how long."""

    data: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Training images: a folder of images, a folder of webdataset tars, or a Hugging Face data set on disk."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Subfolder or split of the data."""
    validation: OptionalPath = None
    """Images kept out of training, to measure PSNR on at the end and every loop.evaluate-every steps."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), default("runs/RECIPE")] = None
    """Folder of the run; with the folder of an earlier one training goes on where that stopped."""
    start_from: OptionalPath = None
    """Checkpoint to start from, in place of random weights or of the stage before in --out."""
    max_seconds: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Time limit: speed is measured over the first steps and the number of steps set to fit."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile): pays on GPUs, not on CPUs."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME"), default("a GPU where there is one")] = None
    """cpu, cuda, cuda:1 ... Several GPUs: torchrun --nproc-per-node N -m semhitok.cli.train RECIPE ..."""


@dataclass(frozen=True)
class LanguageRun:
    """Records, where, how long."""

    data: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """A folder of webdataset tars such as scenes, or a .json file that lists data sets for each stage."""
    stage: LanguageStageName | Literal["all"] = "all"
    """Which stage; all runs the unfinished ones in order."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), default("runs/RECIPE")] = None
    """Folder of the run; with the folder of an earlier one training goes on where that stopped."""
    start_from: OptionalPath = None
    """Unified model to start from, in place of the recipe's parts or of the pretrained model in --out."""
    max_seconds: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Time limit: speed is measured over the first steps and the number of steps set to fit."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile): pays on GPUs, and in long runs on CPUs."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME"), default("a GPU where there is one")] = None
    """cpu, cuda, cuda:1 ... Several GPUs: torchrun --nproc-per-node N -m semhitok.cli.train RECIPE ..."""


@dataclass(frozen=True)
class StagedRun:
    """A run of a recipe with stages."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    stage: Stage | Literal["all"] = "all"
    """Which stage; all runs the unfinished ones in order."""


@dataclass(frozen=True)
class Arguments:
    """A run, and the SemHiTok recipe with what was overridden."""

    staged: Annotated[StagedRun, tyro.conf.arg(name="")]
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class UniTokArguments:
    """A run, and the UniTok recipe with what was overridden."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    # The recipe decides the kind of discriminator, its sizes are options.
    recipe: Annotated[UniTokRecipe, tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class LanguageArguments:
    """A run, and the language model's recipe with what was overridden."""

    run: Annotated[LanguageRun, tyro.conf.arg(name="")]
    recipe: Annotated[LanguageRecipe, tyro.conf.arg(name="")]


def main(arguments: list[str]) -> int:
    """Run the command."""
    match _parse(arguments):
        case Arguments(staged, recipe):
            state = _run(staged.run, recipe.name, lambda place: _train_stages(staged, recipe, **place))
        case UniTokArguments(run, recipe):
            state = _run(run, recipe.name, lambda place: _train_unitok(run, recipe, **place))
        case LanguageArguments(run, recipe):
            state = _train_language(run, recipe)
    # 128 + SIGTERM tells a scheduler that the run is to be continued.
    return 143 if state.interrupted else 0


def _run(run: Run, name: str, train: Callable[[dict[str, Any]], TrainState]) -> TrainState:
    """Open what the options name, and hand it to ``train`` as keyword arguments."""
    device = distributed.init_distributed(run.device)
    try:
        return train(
            {
                "source": open_source(run.data, split=run.split),
                "directory": run.out or Path("runs") / name,
                "device": device,
                "start_from": run.start_from,
                "data_name": run.data.name,
                "compile_blocks": run.compile,
                "validation": open_source(run.validation) if run.validation is not None else None,
                "report": print if distributed.is_main() else lambda line: None,
            }
        )
    finally:
        distributed.destroy_distributed()


def _train_stages(staged: StagedRun, recipe: Recipe, directory: Path, **place: Any) -> TrainState:
    stages: tuple[Stage, ...] = STAGES if staged.stage == "all" else (staged.stage,)
    if staged.run.max_seconds is not None:
        unfinished: tuple[Stage, ...] = tuple(
            stage for stage in stages if not stage_is_finished(directory / stage, stage)
        )
        recipe = with_time_limit(recipe, unfinished, staged.run.max_seconds)
    return run_stages(recipe, directory=directory, stages=stages, **place)


def _train_unitok(run: Run, recipe: UniTokRecipe, **place: Any) -> TrainState:
    if run.max_seconds is not None:
        recipe = replace(recipe, loop=replace(recipe.loop, max_seconds=run.max_seconds))
    return run_unitok(recipe, **place)


def _cost(recipe: LanguageRecipe, name: LanguageStageName) -> float:
    """Tokens of a stage, as many as take equally long."""
    stage = recipe.stage(name)
    return stage.loop.steps * stage.loop.batch_size * stage.row_length * (ALIGN_COST if name == "align" else 1)


def _train_language(run: LanguageRun, recipe: LanguageRecipe) -> TrainState:
    directory = run.out or Path("runs") / recipe.name
    stages: tuple[LanguageStageName, ...] = recipe.stages if run.stage == "all" else (run.stage,)
    if run.max_seconds is not None:
        unfinished: tuple[LanguageStageName, ...] = tuple(
            stage for stage in stages if not stage_is_finished(directory / stage, stage)
        )
        costs: dict[LanguageStageName, float] = {stage: _cost(recipe, stage) for stage in unfinished}
        for stage, cost in costs.items():
            part, limit = recipe.stage(stage), run.max_seconds * cost / sum(costs.values())
            recipe = replace(recipe, **{stage: replace(part, loop=replace(part.loop, max_seconds=limit))})
    device = distributed.init_distributed(run.device)
    try:
        return run_language(
            recipe,
            run.data,
            directory,
            stages=stages,
            device=device,
            start_from=run.start_from,
            data_name=run.data.name,
            compile_blocks=run.compile,
            report=print if distributed.is_main() else lambda line: None,
        )
    finally:
        distributed.destroy_distributed()


def with_time_limit(recipe: Recipe, stages: tuple[Stage, ...], seconds: float) -> Recipe:
    """The recipe with a time limit on each of the stages, which together take ``seconds``."""
    total = sum(TIME_SHARES[stage] for stage in stages)
    changed = {}
    for stage in stages:
        name = stage.replace("-", "_")
        part = getattr(recipe, name)
        limit = seconds * TIME_SHARES[stage] / total
        changed[name] = replace(part, loop=replace(part.loop, max_seconds=limit))
    return replace(recipe, **changed)


def _parse(arguments: list[str]) -> Arguments | UniTokArguments | LanguageArguments:
    """The run, and the recipe with what was overridden; a page of help shows the run's options unless all are asked for."""
    run = Run(data=tyro.MISSING)
    short: dict[str, Any] = {name: StagedRun(run) for name in RECIPES} | dict.fromkeys(UNITOK_RECIPES, run)
    language_run = LanguageRun(data=tyro.MISSING)
    short |= dict.fromkeys(LANGUAGE_RECIPES, language_run)
    chosen = next((argument for argument in arguments if argument in short), None)
    if chosen is not None and {"-h", "--help"} & set(arguments):
        _read(short, [chosen, "--help"], _summary(chosen))
    arguments = ["--help" if argument == HELP_ALL else argument for argument in arguments]
    staged = {name: Arguments(StagedRun(run), recipe()) for name, recipe in RECIPES.items()}
    unitok = {name: UniTokArguments(run, recipe()) for name, recipe in UNITOK_RECIPES.items()}
    language = {name: LanguageArguments(language_run, recipe()) for name, recipe in LANGUAGE_RECIPES.items()}
    return _read(staged | unitok | language, arguments)


def _read(kinds: dict[str, Any], arguments: list[str], description: str | None = None) -> Any:
    """What was given to one of the recipes, whose own description is its first line unless there is a longer one."""
    descriptions = {name: description or _first_line(name) for name in kinds}
    kind = tyro.extras.subcommand_type_from_defaults(kinds, descriptions, prefix_names=False)
    head = "Train a tokenizer or a language model on one, all stages or one. `semhitok train RECIPE --help` shows a recipe and the options."
    return tyro.cli(kind, args=arguments, prog="semhitok train", description=head)  # pyright: ignore


def _first_line(recipe: str) -> str:
    found = (RECIPES | UNITOK_RECIPES | LANGUAGE_RECIPES)[recipe]
    return (found.__doc__ or recipe).splitlines()[0].replace("``", "")


def _summary(name: str) -> str:
    """A recipe in a few lines."""
    if name in RECIPES:
        lines, options = _stages(RECIPES[name]()), "--pixel.loop.steps 5000, --model.decoder-layers 6"
    elif name in LANGUAGE_RECIPES:
        lines, options = _language(LANGUAGE_RECIPES[name]()), "--pretrain.loop.steps 5000, --adapter single"
    else:
        lines, options = _unitok(UNITOK_RECIPES[name]()), "--loop.steps 5000, --model.codebook-size 512"
    return "\n".join(
        [
            _first_line(name),
            *lines,
            f"\nEvery value of the recipe is an option, too: {options} and so on; {HELP_ALL} lists them.",
        ]
    )


def _unitok(recipe: UniTokRecipe) -> list[str]:
    model, loop, task = recipe.model, recipe.loop, recipe.task
    return [
        f"  {model['image_size']} px, {model['num_codebooks']} codebooks of {model['codebook_size']:,} codes",
        f"  {loop.steps:,} steps of {loop.batch_size:,} images, learning rate {task.optimizer.learning_rate:g}",
    ]


def _language(recipe: LanguageRecipe) -> list[str]:
    size = recipe.size
    own = f"{size.layers} layers of {size.width} channels from scratch"
    lines = [
        f"  tokens of {recipe.tokenizer}, adapter {recipe.adapter}, language model: {recipe.language_model or own}"
    ]
    for name in recipe.stages:
        part = recipe.stage(name)
        rate = part.task.optimizer.learning_rate
        rows = f"{part.loop.batch_size} rows of {part.row_length:,} tokens"
        lines.append(f"  {name:<10}{part.loop.steps:>8,} steps of {rows}, learning rate {rate:g}")
    return lines


def _stages(recipe: Recipe) -> list[str]:
    model = recipe.model
    grid = model["image_size"] // model["patch_size"]
    lines = [
        f"  {model['image_size']} px, {grid} x {grid} tokens, {model['semantic_codebook_size']:,} x "
        f"{model['subcodebook_size']} codes; teacher {recipe.teacher} at {recipe.teacher_image_size} px",
    ]
    for stage in STAGES:
        part = recipe.semantic if stage == "semantic" else recipe.pixel_stage(stage)
        rate = part.task.optimizer.learning_rate
        lines.append(
            f"  {stage:<15}{part.loop.steps:>8,} steps of {part.loop.batch_size} images, learning rate {rate:g}"
        )
    return lines


if __name__ == "__main__":
    import sys

    from semhitok.cli import main as semhitok

    sys.exit(semhitok(["train", *sys.argv[1:]]))
