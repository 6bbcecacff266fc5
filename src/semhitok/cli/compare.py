"""``semhitok compare``: tokenizers side by side, as they are, or trained on equal terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.cli.arguments import Count, Limit, OptionalPath, UsageError
from semhitok.cli.tables import INTERRUPTED, TableOptions
from semhitok.storage.atomic import write_text
from semhitok.types import FitMode

if TYPE_CHECKING:
    from semhitok.experiments import Ablation
    from semhitok.experiments.measurements import Measurement

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]


@dataclass(frozen=True)
class Arguments:
    """Compare tokenizers: checkpoints as they are, or systems that are trained on equal terms.

    With --images, the checkpoints are measured on the same images, without training; --out receives comparison.png,
    comparison.md and comparison.json. With --train, systems are trained under one budget and measured on --test; each
    finished run writes a small JSON file to --results, so a table can be completed over several sessions, and by
    processes that work on different seeds. With --language-data, a small language model is trained on the tokens of every
    finished run, from its kept model in --out, and its figures are added to the run's file. Without --data, the table is
    printed from the existing results.
    """

    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT ...", help_behavior_hint="")
    ] = ()
    """Folders, hub ids or names of bundled checkpoints, for --images."""
    images: OptionalPath = None
    """Images on which the checkpoints are measured."""
    fit: FitMode = "crop"
    """How to make images square: crop the centre, or resize (squeeze)."""
    limit: Limit = None
    """At most this many images, evenly spaced."""
    batch_size: Count = 32
    """Number of images per batch, and in the batch that is timed."""
    train: Names = ()
    """Systems to train: reconstruction, unified, all, sghc (its controls), or single ones (a wrong name lists them)."""
    quantizer: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...", help_behavior_hint="")] = ()
    """Python files that register quantizers of your own, for --train and for checkpoints that have them; they are run."""
    data: OptionalPath = None
    """Training images with labels: scenes of the train split (`semhitok data scenes`)."""
    language_data: OptionalPath = None
    """Scenes on which a small language model is trained for every finished run (split scenes-100), for --measure."""
    language_test: OptionalPath = None
    """Scenes about which it is asked, and from whose captions it draws (split scenes-100-shared)."""
    measure: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("answers", "drawing")
    """What the language model is measured by: answers, drawing, drawing-semantic (a wrong name lists them)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("comparison")
    """Folder for pictures, and for runs and caches."""
    results: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("docs/comparison")
    """Folder for results, table and plot of --train."""
    shared: Annotated[TableOptions, tyro.conf.arg(name="")] = field(default_factory=TableOptions)


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok compare")
    if bool(options.train) == (options.images is not None):
        raise UsageError(
            "pass checkpoints and --images to compare them as they are, or --train to compare systems in training"
        )
    if options.quantizer:
        from semhitok.quantizers import read_quantizer_file

        for path in options.quantizer:
            print(f"{path} registers {', '.join(read_quantizer_file(path))}")
    if options.images is not None:
        return _side_by_side(options, options.images)
    if options.checkpoints:
        raise UsageError(f"--train trains systems from random weights: leave out {', '.join(options.checkpoints)}")
    return _trained(options)


def _side_by_side(options: Arguments, images: Path) -> int:
    from semhitok.cli.progress import progress_bars
    from semhitok.data.sources import open_source
    from semhitok.evaluation.tokenizer.side_by_side import compare_checkpoints
    from semhitok.inference.loading import load_tokenizer
    from semhitok.losses import VGGPerceptual
    from semhitok.storage.cache import weights_path

    if not options.checkpoints:
        raise UsageError("--images needs checkpoints to measure: name at least one")
    if len(set(options.checkpoints)) < len(options.checkpoints):
        raise UsageError("a checkpoint is named twice: name each one once")
    source = open_source(images)
    models = {name: load_tokenizer(name, options.shared.device) for name in options.checkpoints}
    perceptual, weights = None, weights_path("vgg16_hed.h5")
    if weights.exists():
        perceptual = VGGPerceptual.from_hed(weights).to(next(iter(models.values())).device)
    else:
        print(f"no perceptual distance: its weights are not at {weights} (semhitok data fetch weights)")
    with progress_bars() as advance:
        found = compare_checkpoints(
            models,
            source,
            fit=options.fit,
            batch_size=options.batch_size,
            limit=options.limit,
            perceptual=perceptual,
            progress=advance,
        )
    print(found.to_markdown())
    for path in found.save(options.out).values():
        print(f"wrote {path}")
    return 0


def _trained(options: Arguments) -> int:
    from semhitok.experiments import InterruptionError, draw, results_of
    from semhitok.experiments.comparison import chosen_systems, comparison, save_pareto_plot

    if (options.data is None) != (options.shared.test is None):
        raise UsageError("pass both --data and --test to train, or neither to print the table")
    if (options.language_data is None) != (options.language_test is None):
        raise UsageError("pass both --language-data and --language-test, or neither to leave out the language model")
    if options.language_data is not None and options.data is None:
        raise UsageError("--language-data measures trained systems: pass their --data and --test, too")
    try:
        table = comparison(chosen_systems(options.train))
        chosen = _measurements(options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    code = 0
    try:
        _run(table, chosen, options)
    except InterruptionError:
        code = INTERRUPTED
    results = results_of(table, options.results, options.shared.seeds)
    text = draw(table, results)
    write_text(options.results / f"{table.name}.md", text)
    print(text)
    plot = options.results / "pareto.png"
    if table.name == "comparison" and save_pareto_plot(plot, table, results):
        print(f"wrote {plot}")
    return code


def _measurements(options: Arguments) -> list[Measurement]:
    from semhitok.experiments.measurements import measurements

    known = measurements()
    unknown = [name for name in options.measure if name not in known]
    if unknown:
        raise ValueError(f"unknown measurement {unknown[0]!r}: choose from {', '.join(known)}")
    return [known[name] for name in options.measure]


def _run(table: Ablation, chosen: list[Measurement], options: Arguments) -> None:
    from semhitok.experiments import language_context, run
    from semhitok.experiments.measurements import measure

    shared = options.shared
    if options.data is None or shared.test is None:
        return
    context = shared.context(options.data, shared.test, options.out)
    language = None
    if options.language_data is not None and options.language_test is not None:
        language = language_context(context, options.language_data, options.language_test)
    run(table, context, options.results, shared.seeds)
    if language is not None:
        measure(table, chosen, context, language, options.results, shared.seeds)
