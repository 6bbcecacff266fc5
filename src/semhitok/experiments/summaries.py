"""What a folder of results says: one line for each experiment, over its seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from semhitok.experiments.results import Result, load_result

DRAWING_FIGURES = ("perplexity", "predicted_bits", "frechet", "frechet_guided", "frechet_reconstructed")
LOWER_IS_BETTER = frozenset(
    {
        *("bits", "tokens", "vocabulary", "codebook_size", "parameters", "weights_megabytes"),
        *("perceptual", "frechet", "error", "semantic_error"),
        *(f"{name}_{figure}" for name in ("drawing", "drawing-semantic") for figure in DRAWING_FIGURES),
    }
)
"""Metrics of which less is better; of all others more is."""


@dataclass(frozen=True)
class Summary:
    """One experiment over its seeds.

    Attributes:
        experiment: its name.
        seeds: in order.
        means: mean of every metric over the seeds that have it.
        spreads: half of the range over these seeds, 0 for a single one.
    """

    experiment: str
    seeds: tuple[int, ...]
    means: dict[str, float]
    spreads: dict[str, float]


def summarise(results: list[Result]) -> list[Summary]:
    """One summary for each experiment, sorted by name."""
    by_name: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.experiment, result.seed)):
        by_name.setdefault(result.experiment, []).append(result)
    return [_summary(name, found) for name, found in by_name.items()]


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """The results in a folder's ``.json`` files, and the names of those that are something else.

    Raises:
        ValueError: it is no folder, or has no result.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of results")
    results, others = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append(load_result(path))
        except (ValueError, OSError):
            others.append(path.name)
    if not results:
        raise ValueError(f"{folder} holds no results, which `semhitok ablate` writes as .json files")
    return results, others


def _summary(name: str, results: list[Result]) -> Summary:
    values: dict[str, list[float]] = {}
    for result in results:
        for metric, value in result.figures.items():
            values.setdefault(metric, []).append(value)
    return Summary(
        name,
        tuple(result.seed for result in results),
        {metric: statistics.fmean(found) for metric, found in values.items()},
        {metric: (max(found) - min(found)) / 2 for metric, found in values.items()},
    )
