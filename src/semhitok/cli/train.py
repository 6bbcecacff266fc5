"""``semhitok train RECIPE``: train all stages of a recipe or one of them, with resume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from semhitok import distributed
from semhitok.cli import report_error
from semhitok.cli.arguments import OptionalPath, default
from semhitok.data.sources import open_source
from semhitok.recipes import LANGUAGE_RECIPES, RECIPES, UNITOK_RECIPES, LanguageRecipe, Recipe, UniTokRecipe
from semhitok.training.state import TrainState
from semhitok.types import STAGES, LanguageStageName, ShardKind, Stage

HELP_ALL = "--help-all"  # a recipe has over a hundred values


@dataclass(frozen=True)
class Run:
    """Options of a run."""

    data: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Training images: a folder of images, a folder of webdataset tars, or a Hugging Face data set on disk."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Subfolder or split of the data."""
    allow_outside: bool = False
    """Also read images that a Hugging Face data set stores as paths outside its folder."""
    validation: OptionalPath = None
    """Images kept out of training, to measure PSNR on at the end and every loop.evaluate-every steps."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), default("runs/RECIPE")] = None
    """Folder of the run; if it holds an earlier run, training resumes from there."""
    start_from: OptionalPath = None
    """Checkpoint to start from (a folder, or the name of a bundled one), in place of random weights or the previous stage in --out."""
    max_seconds: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Time budget: speed is measured over the first steps, and the number of steps is set to fit."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile): worthwhile on GPUs, not on CPUs."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME"), default("a GPU if available")] = None
    """cpu, cuda, or the number of a GPU, such as 1. Several GPUs: torchrun --nproc-per-node N -m semhitok.cli.train RECIPE ..."""
    collective_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Under torchrun: end if a rank hangs for so long."""
    dry_run: bool = False
    """Prepare everything and take one step, but write no checkpoint and no model."""


@dataclass(frozen=True)
class LanguageRun:
    """Options of a run of a language model."""

    data: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """A folder of webdataset tars such as scenes, or of token files (`semhitok pretokenize`), or a .json file that lists data sets
    for each stage."""
    stage: LanguageStageName | Literal["all"] = "all"
    """Stage to run; all runs the unfinished stages in order."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), default("runs/RECIPE")] = None
    """Folder of the run; if it holds an earlier run, training resumes from there."""
    start_from: OptionalPath = None
    """Unified model to start from, in place of the recipe's parts or the pretrained model in --out."""
    max_seconds: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Time budget: speed is measured over the first steps, and the number of steps is set to fit."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile): worthwhile on GPUs, and on CPUs in long runs."""
    shard: ShardKind = "none"
    """Under torchrun, divide parameters, gradients and optimizer states among all ranks (full), or among those of each node (hybrid)."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME"), default("a GPU if available")] = None
    """cpu, cuda, or the number of a GPU, such as 1. Several GPUs: torchrun --nproc-per-node N -m semhitok.cli.train RECIPE ..."""
    collective_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Under torchrun: end if a rank hangs for so long."""
    dry_run: bool = False
    """Prepare everything and take one step, but write no checkpoint and no model."""


@dataclass(frozen=True)
class StagedRun:
    """A run of a recipe with stages."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    stage: Stage | Literal["all"] = "all"
    """Stage to run; all runs the unfinished stages in order."""


@dataclass(frozen=True)
class Arguments:
    """A run and the SemHiTok recipe with its overrides."""

    staged: Annotated[StagedRun, tyro.conf.arg(name="")]
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class UniTokArguments:
    """A run and the UniTok recipe with its overrides."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    # The recipe decides the kind of discriminator, its sizes are options.
    recipe: Annotated[UniTokRecipe, tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class LanguageArguments:
    """A run and the language model's recipe with its overrides."""

    run: Annotated[LanguageRun, tyro.conf.arg(name="")]
    recipe: Annotated[LanguageRecipe, tyro.conf.arg(name="")]


def main(arguments: list[str]) -> int:
    """Run the command."""
    chosen = _parse(arguments)
    with distributed.ended_together(partial(report_error, "train")):
        state = _train(chosen)
        distributed.leave_together()  # torchrun ends all ranks soon after the first one has left
    distributed.stop_watching()
    distributed.destroy_distributed()
    # 128 + SIGTERM tells a scheduler that the run is to be continued.
    return 143 if state.interrupted else 0


def _train(chosen: Arguments | UniTokArguments | LanguageArguments) -> TrainState:
    # Imported here, because help needs no models.
    from semhitok.runs.language import run_language
    from semhitok.runs.semhitok import run_semhitok
    from semhitok.runs.stage_runner import RunOptions
    from semhitok.runs.unitok import run_unitok
    from semhitok.tokenizers.checkpoints import builtin_checkpoint

    run = chosen.staged.run if isinstance(chosen, Arguments) else chosen.run
    device = distributed.init_distributed(run.device, timeout=run.collective_timeout)
    distributed.watch_other_ranks()
    options = RunOptions(
        directory=run.out or Path("runs") / chosen.recipe.name,
        device=device,
        data_name=run.data.name,
        start_from=None if run.start_from is None else Path(builtin_checkpoint(str(run.start_from))),
        max_seconds=run.max_seconds,
        compile_blocks=run.compile,
        dry_run=run.dry_run,
        shard=run.shard if isinstance(run, LanguageRun) else "none",
        report=print if distributed.is_main() else lambda line: None,
    )
    if isinstance(chosen, LanguageArguments):
        stage = chosen.run.stage
        return run_language(
            chosen.recipe, run.data, options, stages=chosen.recipe.stages if stage == "all" else (stage,)
        )
    assert isinstance(run, Run)
    source = open_source(run.data, split=run.split, allow_outside=run.allow_outside)
    validation = None
    if run.validation is not None:
        validation = open_source(run.validation, allow_outside=run.allow_outside)
    if isinstance(chosen, UniTokArguments):
        return run_unitok(chosen.recipe, source, options, validation=validation)
    stage = chosen.staged.stage
    stages = STAGES if stage == "all" else (stage,)
    return run_semhitok(chosen.recipe, source, options, stages=stages, validation=validation)


def _parse(arguments: list[str]) -> Arguments | UniTokArguments | LanguageArguments:
    """The run and the recipe with its overrides; ``--help`` shows the run's options only, ``--help-all`` all of them."""
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
    """Parse the arguments of one of the recipes, described by the first line of its docstring by default."""
    descriptions = {name: description or _first_line(name) for name in kinds}
    kind = tyro.extras.subcommand_type_from_defaults(kinds, descriptions, prefix_names=False)
    head = "Train a tokenizer, or a language model on top of one: all stages or a single one. `semhitok train RECIPE --help` describes a recipe and its options."
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
            f"\nEvery value of the recipe is also an option, such as {options}; {HELP_ALL} lists them all.",
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
        part = recipe.stage(stage)
        rate = part.task.optimizer.learning_rate
        lines.append(
            f"  {stage:<15}{part.loop.steps:>8,} steps of {part.loop.batch_size} images, learning rate {rate:g}"
        )
    return lines


if __name__ == "__main__":
    import sys

    from semhitok.cli import main as semhitok

    sys.exit(semhitok(["train", *sys.argv[1:]]))
