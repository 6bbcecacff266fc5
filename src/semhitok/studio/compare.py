"""The tab *Compare*: results of experiments as a table and as a picture with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semhitok.experiments.results import Result
from semhitok.experiments.summaries import LOWER_IS_BETTER, Summary, read_results, summarise
from semhitok.metrics.pareto import pareto_front
from semhitok.studio.html import empty, table
from semhitok.visualization.scatter_plot import Axis, Point, scatter_plot

EVERYTHING = "Every experiment"
TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "bits": "bits per image",
    "perceptual": "perceptual distance",
    "frechet": "Fréchet distance",
    "usage": "codes used",
    "vocabulary": "vocabulary",
}
"""What figures are called in the page; others go by their own names."""
LOGARITHMIC = frozenset({"bits", "vocabulary", "perplexity", "semantic_perplexity"})
COLUMNS = ("bits", "psnr", "ssim", "perceptual", "frechet", "usage")
"""Columns of the table of all experiments, where they were measured; else the first few figures."""


@dataclass(frozen=True)
class Selection:
    """Which experiments are shown: of one table (by its name, or ``EVERYTHING``), with all of some words in their names."""

    tables: str = EVERYTHING
    words: str = ""


def tables_in(folder: Path) -> list[str]:
    """``EVERYTHING``, and the ablation tables with results in a folder."""
    from semhitok.experiments import ABLATIONS

    names = {result.experiment for result in read_results(folder)[0]}
    return [
        EVERYTHING,
        *(name for name, ablation in ABLATIONS.items() if any(row.experiment.name in names for row in ablation.rows)),
    ]


def figures_in(summaries: Sequence[Summary]) -> list[str]:
    """Names of all figures, those measured for most experiments first."""
    names = dict.fromkeys(name for summary in summaries for name in summary.means)
    return sorted(names, key=lambda name: -sum(name in summary.means for summary in summaries))


def select(folder: Path, selection: Selection) -> list[Summary]:
    """The chosen experiments.

    Raises:
        ValueError: the folder holds no results.
    """
    from semhitok.experiments import ABLATIONS

    results: list[Result] = read_results(folder)[0]
    if selection.tables in ABLATIONS:
        wanted = {row.experiment.name for row in ABLATIONS[selection.tables].rows}
        results = [result for result in results if result.experiment in wanted]
    words = selection.words.lower().split()
    return [summary for summary in summarise(results) if all(word in summary.experiment.lower() for word in words)]


def draw_table(folder: Path, selection: Selection) -> str:
    """The chosen experiments as a table: that of the ablation, with the published values, or one of all experiments."""
    from semhitok.experiments import ABLATIONS

    summaries = select(folder, selection)
    if not summaries:
        return empty("No experiment fits these words.")
    if selection.tables not in ABLATIONS:
        measured = figures_in(summaries)
        columns = [name for name in COLUMNS if name in measured] or measured[: len(COLUMNS)]
        rows = [
            [summary.experiment, *(_cell(summary, name, _digits(name)) for name in columns), str(len(summary.seeds))]
            for summary in summaries
        ]
        return table(
            ["experiment", *(TITLES.get(name, name) for name in columns), "seeds"], rows, "Results by experiment"
        )
    ablation = ABLATIONS[selection.tables]
    by_name = {summary.experiment: summary for summary in summaries}
    labels = list(ablation.rows[0].label)
    published = list(dict.fromkeys(column for row in ablation.rows for column in row.paper))
    rows = [
        [
            *(row.label[column] for column in labels),
            *(_cell(by_name[row.experiment.name], m.key, m.digits, m.scale) for m in ablation.metrics),
            *(row.paper.get(column, "") for column in published),
            str(len(by_name[row.experiment.name].seeds)),
        ]
        for row in ablation.rows
        if row.experiment.name in by_name
    ]
    heading = [*labels, *(m.title for m in ablation.metrics), *(f"paper: {name}" for name in published), "seeds"]
    source = f" Published values: {ablation.source}." if ablation.source else ""
    return f"{table(heading, rows, ablation.title)}<p>{ablation.note}{source}</p>"


def draw_picture(folder: Path, selection: Selection, across: str, up: str) -> str:
    """Two figures of the chosen experiments as an SVG with their Pareto front."""
    summaries = [summary for summary in select(folder, selection) if {across, up} <= summary.means.keys()]
    summaries = [s for s in summaries if math.isfinite(s.means[across]) and math.isfinite(s.means[up])]
    if not summaries:
        return empty(f"None of these experiments has both {TITLES.get(across, across)} and {TITLES.get(up, up)}.")
    points = [
        Point(
            summary.experiment,
            summary.means[across],
            summary.means[up],
            f"{_cell(summary, across, _digits(across))} {across}, {_cell(summary, up, _digits(up))} {up}",
        )
        for summary in summaries
    ]
    better = (across not in LOWER_IS_BETTER, up not in LOWER_IS_BETTER)
    front = pareto_front([(point.x, point.y) for point in points], higher_is_better=better)
    axes = [Axis(TITLES.get(name, name), name in LOGARITHMIC) for name in (across, up)]
    return scatter_plot(points, front, *axes)


def _cell(summary: Summary, name: str, digits: int, scale: float = 1.0) -> str:
    if name not in summary.means:
        return "–"
    text = f"{summary.means[name] * scale:,.{digits}f}"
    spread = f"{summary.spreads[name] * scale:.{digits}f}"
    return f"{text} ± {spread}" if float(spread) else text


def _digits(name: str) -> int:
    return 0 if name in LOGARITHMIC else 1 if name == "frechet" else 2 if name == "psnr" else 3
