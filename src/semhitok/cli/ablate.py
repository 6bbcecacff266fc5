"""``semhitok ablate NAME``: rerun a table and print it next to the paper's values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.cli.arguments import Count, Device, OptionalPath, UsageError
from semhitok.storage.atomic import write_text

if TYPE_CHECKING:
    from semhitok.experiments import Ablation


@dataclass(frozen=True)
class Arguments:
    """Run a table of experiments, each with several seeds, and print it as Markdown next to the published values.

    Each finished run writes a small JSON file to --results, so a table can be completed over several sessions, and by
    processes that work on different seeds. Without --train the table is printed from the existing results.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """Table to run or print; without a name, all tables are listed."""
    train: OptionalPath = None
    """Training images with captions and labels: scenes of the train split (`semhitok data scenes`)."""
    test: OptionalPath = None
    """Images to measure on: scenes of the heldout split."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the weights, the codebooks and the order of the images."""
    test_images: Count = 600
    """Number of test images to measure, evenly spaced."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("ablations")
    """Folder for runs, caches and pictures."""
    results: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("docs/ablations")
    """Folder for results and tables."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok ablate")
    from semhitok.experiments import ABLATIONS, draw, results_of

    if not options.name:
        print("\n".join(f"{ablation.name:<24} {ablation.title}" for ablation in ABLATIONS.values()))
        return 0
    if options.name not in ABLATIONS:
        raise UsageError(f"unknown table {options.name!r}; choose from {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[options.name]
    if (options.train is None) != (options.test is None):
        raise UsageError("pass both --train and --test to run a table, or neither to print it")
    code = 0
    if options.train is not None and options.test is not None:
        code = _run(ablation, options, options.train, options.test)
    table = draw(ablation, results_of(ablation, options.results, options.seeds))
    write_text(options.results / f"{ablation.name}.md", table)
    print(table)
    return code


def _run(ablation: Ablation, options: Arguments, train: Path, test: Path) -> int:
    from semhitok.distributed import choose_device
    from semhitok.experiments import InterruptionError, open_context, run

    def report(line: str) -> None:
        print(line, flush=True)

    context = open_context(train, test, options.out, choose_device(options.device), options.test_images, report)
    try:
        run(ablation, context, options.results, options.seeds)
    except InterruptionError:
        return 143
    return 0
