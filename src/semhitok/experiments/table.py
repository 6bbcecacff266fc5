"""An ablation: rows of experiments next to the paper's values, and its Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from semhitok.experiments.experiment import Experiment
from semhitok.experiments.results import Result, changed_settings


@dataclass(frozen=True)
class Metric:
    """A column with a measured figure.

    Attributes:
        key: its name in ``Result.metrics``.
        title: heading, with the unit.
        digits: decimals.
        scale: factor before printing, 100 for a share shown as a percentage.
    """

    key: str
    title: str
    digits: int = 2
    scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: what is varied, by column.
        experiment: the experiment of this row.
        paper: the published values of this row by column heading, as printed there.
    """

    label: Mapping[str, str]
    experiment: Experiment
    paper: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """A table.

    Attributes:
        name: name on the command line.
        title: one line.
        source: where the values were published; empty for tables that the paper lacks.
        rows: at least two; the first row determines the label columns.
        metrics: columns measured here.
        note: what readers need to know: the budget, what is equal between rows and what is not.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    note: str


def draw(ablation: Ablation, results: Mapping[str, Sequence[Result]]) -> str:
    """The table as Markdown.

    A cell is the mean over seeds with half the range after ``±``, which is left out for a single seed or equal values; an
    experiment not yet run shows a dash. Below the table stands which rows were made with other settings than the present ones.

    Args:
        ablation: the table.
        results: finished runs by the name of the experiment.
    """
    labels = list(ablation.rows[0].label)
    published = list(dict.fromkeys(column for row in ablation.rows for column in row.paper))
    heading = [*labels, *(metric.title for metric in ablation.metrics), *(f"paper: {name}" for name in published)]
    lines = [f"**{ablation.title}**", "", _line([*heading, "seeds"]), _line(["---"] * (len(heading) + 1))]
    for row in ablation.rows:
        found = results.get(row.experiment.name, ())
        cells = [row.label[column] for column in labels]
        cells += [_cell(metric, found) for metric in ablation.metrics]
        cells += [row.paper.get(column, "") for column in published]
        lines.append(_line([*cells, str(len(found))]))
    where = f"Published values: {ablation.source}. " if ablation.source else ""
    return "\n".join([*lines, "", f"{where}{ablation.note}", *_outdated(ablation, results), ""])


def _outdated(ablation: Ablation, results: Mapping[str, Sequence[Result]]) -> list[str]:
    """A paragraph on the results whose settings are not those of their experiments any more; nothing if there are none."""
    runs: dict[str, list[str]] = {}
    for experiment in {row.experiment.name: row.experiment for row in ablation.rows}.values():
        for result in results.get(experiment.name, ()):
            changes = changed_settings(result.settings, experiment.settings())
            if changes:
                runs.setdefault(", ".join(changes), []).append(f"{experiment.name}-seed{result.seed}")
    told = [f"{', '.join(names)} ({changes})" for changes, names in runs.items()]
    return ["", f"Made with settings that have changed since: {'; '.join(told)}."] if told else []


def _cell(metric: Metric, results: Sequence[Result]) -> str:
    values = [each[metric.key] * metric.scale for each in (result.figures for result in results) if metric.key in each]
    if not values:
        return "–"
    text = f"{statistics.fmean(values):,.{metric.digits}f}"
    return text if max(values) == min(values) else f"{text} ± {(max(values) - min(values)) / 2:.{metric.digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
