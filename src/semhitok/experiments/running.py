"""Run the experiments of a table that have no result yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from semhitok.experiments.experiment import Experiment, ExperimentContext
from semhitok.experiments.results import Result, environment, existing, finished, save_result
from semhitok.experiments.table import Ablation


def experiments(ablation: Ablation) -> list[Experiment]:
    """The experiments of a table, each once, in the order of its rows."""
    return list({row.experiment.name: row.experiment for row in ablation.rows}.values())


def run(ablation: Ablation, context: ExperimentContext, results: Path, seeds: Sequence[int]) -> None:
    """Train and measure what is missing; each finished run writes its own file into ``results`` at once.

    All experiments run with one seed before any runs with the next, so that every row has a result as early as possible.

    Raises:
        InterruptionError: stopped by a signal; call again to resume.
        ValueError: a result was made with other settings.
    """
    wanted = [(seed, experiment) for seed in seeds for experiment in experiments(ablation)]
    missing = [pair for pair in wanted if not finished(results, pair[1].name, pair[1].settings(), pair[:1])]
    context.report(f"{ablation.name}: {len(wanted) - len(missing)} of {len(wanted)} runs are finished")
    for seed, experiment in missing:
        if finished(results, experiment.name, experiment.settings(), (seed,)):
            continue  # another process has finished it meanwhile
        begun = time.perf_counter()
        metrics = experiment.run(context, seed)
        facts = environment(
            context.device, training_data=context.train.fingerprint[:16], test_data=context.test.fingerprint[:16]
        )
        seconds = time.perf_counter() - begun
        save_result(results, Result(experiment.name, seed, experiment.settings(), metrics, seconds, facts))
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        context.report(f"{experiment.name}, seed {seed}: {shown} ({seconds:.0f} s)")


def results_of(ablation: Ablation, folder: Path, seeds: Iterable[int]) -> dict[str, list[Result]]:
    """The existing results by the name of the experiment, those made with other settings than the present ones included."""
    seeds = list(seeds)
    return {found.name: existing(folder, found.name, seeds) for found in experiments(ablation)}
