"""Measurements of finished runs that are made later, from the kept models: what a small language model does with the ids.

Each has a name, settings and a section of its own in the JSON file of the run, which is written as soon as it is measured. A
command that was killed loses at most one of them, and goes on from the last checkpoint of its language model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from semhitok.experiments.drawing import DrawingExperiment, drawing_recipe
from semhitok.experiments.experiment import Experiment, ExperimentContext
from semhitok.experiments.language import UnderstandingExperiment, small_recipe
from semhitok.experiments.results import (
    Section,
    changed_settings,
    environment,
    existing,
    finished,
    result_file,
    save_result,
)
from semhitok.experiments.running import experiments
from semhitok.experiments.table import Ablation
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.storage.array_cache import digest_of_text
from semhitok.tokenizers.loading import load_tokenizer


@runtime_checkable
class KeepsModel(Protocol):
    """An experiment whose trained tokenizer can be found again."""

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        """The folder of the trained model, None unless it is finished; nothing is trained."""
        ...


@dataclass(frozen=True)
class Measurement:
    """A language model trained on a tokenizer's ids, and what it is measured by.

    Attributes:
        name: name of its section; its figures are called ``NAME_FIGURE``.
        kind: the experiment.
        recipe: complete but for the tokenizer.
    """

    name: str
    kind: type[UnderstandingExperiment] | type[DrawingExperiment]
    recipe: LanguageRecipe

    def settings(self) -> dict[str, Any]:
        """All settings but the tokenizer, which the run says."""
        return {
            name: value for name, value in self.kind(self.name, self.recipe).settings().items() if name != "tokenizer"
        }

    def of(self, tokenizer: Path) -> Experiment:
        """The experiment with a trained tokenizer, whose folder gives its run a name."""
        digest = digest_of_text(f"{'/'.join(tokenizer.parts[-3:])} {self.settings()}")[:10]
        return self.kind(f"{self.name}-{digest}", replace(self.recipe, tokenizer=str(tokenizer)))

    def refusal(self, tokenizer: Path) -> str | None:
        """Why a tokenizer cannot be measured; None if it can be."""
        model = load_tokenizer(tokenizer)
        place = getattr(model.config, "place_dependence", None)
        if place is not None and self.recipe.adapter != "semantic":
            return f"its features depend on the position in the image ({place})"
        if self.recipe.adapter == "semantic" and not _has_semantic_features(model):
            return "its ids have no semantic features"
        return None


def _has_semantic_features(model: Any) -> bool:
    return bool(getattr(model.config, "semantic_dim", 0))


def measurements() -> dict[str, Measurement]:
    """The measurements by name.

    ``answers``: the LLaVA setting, images as input only. ``drawing``: captions to images. ``drawing-semantic``: the same, with
    an input of semantic codes alone, which tokenizers have whose pixel codes depend on the position.
    """
    found = (
        Measurement("answers", UnderstandingExperiment, small_recipe()),
        Measurement("drawing", DrawingExperiment, drawing_recipe()),
        Measurement("drawing-semantic", DrawingExperiment, replace(drawing_recipe(), adapter="semantic")),
    )
    return {measurement.name: measurement for measurement in found}


def measure(
    table: Ablation,
    chosen: Sequence[Measurement],
    trained: ExperimentContext,
    language: ExperimentContext,
    results: Path,
    seeds: Sequence[int],
) -> None:
    """Add the missing sections to the results of finished runs.

    All systems get one section of one seed before any gets the next.

    Args:
        table: whose runs to measure.
        chosen: what to measure.
        trained: the context in which the tokenizers were trained.
        language: the context of the language model: its scenes, and where it is trained.
        results: folder of the results.
        seeds: seeds of the runs; the language model has the same.

    Raises:
        InterruptionError: stopped by a signal; call again to resume.
        ValueError: a section was measured with other settings.
    """
    wanted = [(seed, each, found) for seed in seeds for each in chosen for found in experiments(table)]
    for _, measurement, experiment in wanted:
        _check(results, experiment, seeds, measurement)
    for seed, measurement, experiment in wanted:
        for result in finished(results, experiment.name, experiment.settings(), (seed,)):
            if measurement.name in result.sections or not isinstance(experiment, KeepsModel):
                continue
            title, model = (
                f"{measurement.name} of {experiment.name}, seed {seed}",
                experiment.model_folder(trained, seed),
            )
            refusal = f"its model is not in {trained.runs}" if model is None else measurement.refusal(model)
            if model is None or refusal is not None:
                trained.report(f"{title}: not measured, {refusal}")
                continue
            begun = time.perf_counter()
            figures = measurement.of(model).run(language, seed)
            facts = environment(
                language.device, training_data=language.train.fingerprint[:16], test_data=language.test.fingerprint[:16]
            )
            metrics = {f"{measurement.name}_{name}": value for name, value in figures.items()}
            section = Section(measurement.settings(), metrics, time.perf_counter() - begun, facts)
            (now,) = existing(results, experiment.name, (seed,))  # another process may have added a section meanwhile
            save_result(results, replace(now, sections=now.sections | {measurement.name: section}))
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            trained.report(f"{title}: {shown} ({section.seconds:.0f} s)")


def _check(results: Path, experiment: Experiment, seeds: Sequence[int], measurement: Measurement) -> None:
    for result in existing(results, experiment.name, seeds):
        section = result.sections.get(measurement.name)
        changes = changed_settings(section.settings, measurement.settings()) if section is not None else []
        if changes:
            path = result_file(results, experiment.name, result.seed)
            raise ValueError(
                f"section {measurement.name} of {path} was measured with other settings ({', '.join(changes[:5])}); remove "
                "the section to measure it again"
            )
