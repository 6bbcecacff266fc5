"""``semhitok ablate NAME``: rerun a table and print it next to the paper's values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from semhitok.cli.arguments import OptionalPath, UsageError
from semhitok.cli.tables import INTERRUPTED, TableOptions
from semhitok.storage.atomic import write_text


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
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("ablations")
    """Folder for runs, caches and pictures."""
    results: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("docs/ablations")
    """Folder for results and tables."""
    shared: Annotated[TableOptions, tyro.conf.arg(name="")] = field(default_factory=TableOptions)


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok ablate")
    from semhitok.experiments import ABLATIONS, InterruptionError, draw, results_of, run

    if not options.name:
        print("\n".join(f"{ablation.name:<24} {ablation.title}" for ablation in ABLATIONS.values()))
        return 0
    if options.name not in ABLATIONS:
        raise UsageError(f"unknown table {options.name!r}; choose from {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[options.name]
    shared = options.shared
    if (options.train is None) != (shared.test is None):
        raise UsageError("pass both --train and --test to run a table, or neither to print it")
    code = 0
    if options.train is not None and shared.test is not None:
        context = shared.context(options.train, shared.test, options.out)
        try:
            run(ablation, context, options.results, shared.seeds)
        except InterruptionError:
            code = INTERRUPTED
    table = draw(ablation, results_of(ablation, options.results, shared.seeds))
    write_text(options.results / f"{ablation.name}.md", table)
    print(table)
    return code
