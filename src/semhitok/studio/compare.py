"""The tab *Compare*: results of experiments as a table and as a picture with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from semhitok.experiments.results import Result
from semhitok.experiments.summaries import LOWER_IS_BETTER, Summary, read_results, summarise
from semhitok.metrics.pareto import pareto_front
from semhitok.studio.html import empty, section, table
from semhitok.visualization.scatter_plot import Axis, Point, scatter_plot

if TYPE_CHECKING:
    from semhitok.experiments import Ablation

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


def tables_in(folders: Sequence[Path]) -> list[str]:
    """``EVERYTHING``, and the tables with results in these folders."""
    names = {result.experiment for result in _results(folders)}
    return [
        EVERYTHING,
        *(name for name, ablation in _tables().items() if any(row.experiment.name in names for row in ablation.rows)),
    ]


@cache
def _tables() -> dict[str, Ablation]:
    """The ablations, the comparison of systems, and SGHC's controls."""
    from semhitok.experiments import ABLATIONS
    from semhitok.experiments.comparison import SETS, comparison

    return {**ABLATIONS, "comparison": comparison(SETS["all"]), "sghc": comparison(SETS["sghc"])}


def _results(folders: Sequence[Path]) -> list[Result]:
    return [result for folder in folders for result in read_results(folder)[0]]


def figures_in(summaries: Sequence[Summary]) -> list[str]:
    """Names of all figures, those measured for most experiments first."""
    names = dict.fromkeys(name for summary in summaries for name in summary.means)
    return sorted(names, key=lambda name: -sum(name in summary.means for summary in summaries))


def select(folders: Sequence[Path], selection: Selection) -> list[Summary]:
    """The chosen experiments.

    Raises:
        ValueError: a folder holds no results.
    """
    results = _results(folders)
    if selection.tables != EVERYTHING:
        wanted = {row.experiment.name for row in _tables()[selection.tables].rows}
        results = [result for result in results if result.experiment in wanted]
    words = selection.words.lower().split()
    return [summary for summary in summarise(results) if all(word in summary.experiment.lower() for word in words)]


def draw_table(folders: Sequence[Path], selection: Selection, across: str, up: str) -> str:
    """The chosen experiments as a table: that of the ablation, with the published values, or all that have two figures."""
    summaries = select(folders, selection)
    if selection.tables != EVERYTHING:
        return _ablation_table(_tables()[selection.tables], {summary.experiment: summary for summary in summaries})
    summaries, front = _with_both(summaries, across, up)
    if not summaries:
        return ""
    measured = figures_in(summaries)
    columns = list(dict.fromkeys([across, up, *(name for name in COLUMNS if name in measured)]))
    best_first = sorted(range(len(summaries)), key=lambda i: _signed(summaries[i], up), reverse=True)
    rows = [
        [
            summaries[index].experiment,
            "front" if index in front else "",
            *(_cell(summaries[index], name, _digits(name)) for name in columns),
            str(len(summaries[index].seeds)),
        ]
        for index in best_first
    ]
    heading = ["experiment", "Pareto", *(title(name) for name in columns), "seeds"]
    return table(heading, rows, f"Results by experiment, best {title(up)} first")


def _ablation_table(ablation: Ablation, summaries: Mapping[str, Summary]) -> str:
    lines = [(row, summaries[row.experiment.name]) for row in ablation.rows if row.experiment.name in summaries]
    if not lines:
        return ""
    labels = list(ablation.rows[0].label)
    published = list(dict.fromkeys(column for row in ablation.rows for column in row.paper))
    rows = [
        [
            *(row.label[column] for column in labels),
            *(_cell(summary, metric.key, metric.digits, metric.scale) for metric in ablation.metrics),
            *(row.paper.get(column, "") for column in published),
            str(len(summary.seeds)),
        ]
        for row, summary in lines
    ]
    heading = [*labels, *(m.title for m in ablation.metrics), *(f"paper: {name}" for name in published), "seeds"]
    source = f" Published values: {ablation.source}." if ablation.source else ""
    return section(ablation.title, ablation.note + source, table(heading, rows, ablation.title))


def draw_picture(folders: Sequence[Path], selection: Selection, across: str, up: str) -> str:
    """Two figures of the chosen experiments as an SVG with their Pareto front."""
    summaries, front = _with_both(select(folders, selection), across, up)
    if not summaries:
        return empty(f"None of these experiments has both {title(across)} and {title(up)}.")
    points = [
        Point(
            summary.experiment,
            summary.means[across],
            summary.means[up],
            ", ".join(f"{title(name)} {_cell(summary, name, _digits(name))}" for name in (across, up)),
        )
        for summary in summaries
    ]
    axes = [Axis(title(name), name in LOGARITHMIC) for name in (across, up)]
    return scatter_plot(points, front, *axes)


def title(name: str) -> str:
    """What a figure is called in the page."""
    return TITLES.get(name, name.replace("_", " "))


def _with_both(summaries: Sequence[Summary], across: str, up: str) -> tuple[list[Summary], list[int]]:
    """Those with two finite figures, and the indices of those on the Pareto front."""
    found = [s for s in summaries if all(math.isfinite(s.means.get(name, math.nan)) for name in (across, up))]
    better = (across not in LOWER_IS_BETTER, up not in LOWER_IS_BETTER)
    return found, pareto_front([(s.means[across], s.means[up]) for s in found], higher_is_better=better)


def _signed(summary: Summary, name: str) -> float:
    return -summary.means[name] if name in LOWER_IS_BETTER else summary.means[name]


def _cell(summary: Summary, name: str, digits: int, scale: float = 1.0) -> str:
    if name not in summary.means:
        return "–"
    text = f"{summary.means[name] * scale:,.{digits}f}"
    return f"{text} ± {summary.spreads[name] * scale:.{digits}f}" if summary.spreads[name] else text


def _digits(name: str) -> int:
    return 0 if name in LOGARITHMIC else 1 if name == "frechet" else 2 if name == "psnr" else 3
