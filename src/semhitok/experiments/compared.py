"""Systems of the comparison: whatever trains a tokenizer under the common budget, measured in one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from semhitok.data.reading import SizedImages
from semhitok.data.sample import ImageSource
from semhitok.data.sources import Subset
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.labels import ProbeFeatures
from semhitok.evaluation.semantics.neighbours import neighbour_precision
from semhitok.evaluation.semantics.quantized import image_features
from semhitok.evaluation.tokenizer.cost import measure_cost
from semhitok.experiments.experiment import ExperimentContext
from semhitok.metrics.probe import probe
from semhitok.recipes.vit_recipe import ViTRecipe
from semhitok.runs.vit import run_vit, vit_settings
from semhitok.storage.array_cache import digest_of_text
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.settings import parameters_of

PROBE_IMAGES = 2000
TIMED_IMAGES = 32
BACKBONE_PARTS = ("encoder", "decoder", "pixel_encoder", "pixel_decoder")
"""Names of the parts that all systems have: the pixel encoder and decoder."""


class Trained(Protocol):
    """A system that can be trained; ``SemHiTokExperiment`` is one."""

    def settings(self) -> dict[str, Any]:
        """All settings, as plain values."""
        ...

    def train(self, context: ExperimentContext, seed: int) -> Path:
        """Train what is not finished, resuming; the folder of the model.

        Raises:
            InterruptionError: stopped by a signal.
        """
        ...

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        """The folder of the trained model, None unless it is finished; nothing is trained."""
        ...


@dataclass(frozen=True)
class ViTSystem:
    """A ViT tokenizer as its recipe says; the seeds of its loops are replaced by the run's."""

    recipe: ViTRecipe

    def settings(self) -> dict[str, Any]:
        """See ``Trained``."""
        return vit_settings(self.recipe)

    def train(self, context: ExperimentContext, seed: int) -> Path:
        """See ``Trained``. Runs with other settings have folders of their own."""
        recipe = self.recipe
        for stage in recipe.stages:
            recipe = recipe.with_loop(stage, seed=seed)
        folder = self._folder(context, seed)
        images = context.images(recipe.model["image_size"], recipe.data)
        title = f"{recipe.name}, seed {seed}"
        context.train_run(title, folder, partial(run_vit, recipe, context.train, images=images))
        return folder / recipe.stages[-1] / "model"

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        """See ``Trained``."""
        last = self.recipe.stages[-1]
        stage = self._folder(context, seed) / last
        return stage / "model" if stage_is_finished(stage, last) else None

    def _folder(self, context: ExperimentContext, seed: int) -> Path:
        digest = digest_of_text(json.dumps(self.settings(), sort_keys=True))[:10]
        return context.runs / f"{self.recipe.name}-{digest}-seed{seed}"


@dataclass(frozen=True)
class ComparedExperiment:
    """A system, trained and measured.

    Attributes:
        system: its name.
        trained: how it is trained.
    """

    system: str
    trained: Trained

    @property
    def name(self) -> str:
        """Unique, also the stem of its files."""
        return f"compared-{self.system}"

    def settings(self) -> dict[str, Any]:
        """See ``Experiment``."""
        return self.trained.settings()

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        """See ``Trained``."""
        return self.trained.model_folder(context, seed)

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        model = load_tokenizer(self.trained.train(context, seed))
        model.eval().to(context.device)
        metrics = context.measure(model, f"{self.name}-seed{seed}")
        for measure in MEASUREMENTS:
            metrics |= measure(model, context)
        return metrics


def _meaning(model: Tokenizer, context: ExperimentContext) -> dict[str, float]:
    """What a linear probe and the nearest neighbours read off the quantized features of images with a category."""
    fitted = _labelled(model, Subset(context.train, range(min(PROBE_IMAGES, len(context.train)))), None)
    tested = _labelled(model, context.test, context.test_images)
    if len(set(fitted.labels)) < 2 or not set(tested.labels) & set(fitted.labels):
        return {}
    found: dict[str, float] = {}
    for kind, parts in tested.features.items():
        fitted_ND, tested_ND = torch.cat(fitted.features[kind]), torch.cat(parts)
        result = probe(fitted_ND, fitted.labels, tested_ND, tested.labels, train_groups=fitted.concepts)
        near = neighbour_precision(tested_ND, tested.labels, groups=tested.concepts)
        found |= {f"probe_{kind}": result.accuracy, f"neighbours_{kind}": near.precision}
        found |= {"probe_chance": result.chance, "neighbours_chance": near.chance}
    best = max(value for name, value in found.items() if name.startswith("probe_") and name != "probe_chance")
    return found | {"understanding": best}


def _labelled(model: Tokenizer, source: ImageSource, limit: int | None) -> ProbeFeatures:
    collected = ProbeFeatures()
    for batch in SizedImages(source, model.config.image_size, limit=limit):
        encoded = model.encode(to_float(batch.images.to(model.device)))
        collected.add(image_features(model, encoded), batch.metadata)
    return collected


def _cost(model: Tokenizer, context: ExperimentContext) -> dict[str, float]:
    """Speed, memory and parameters."""
    batch = next(iter(SizedImages(context.test, model.config.image_size, limit=TIMED_IMAGES, batch_size=TIMED_IMAGES)))
    cost = measure_cost(model, to_float(batch.images.to(model.device)))
    parts = parameters_of(model)  # pyright: ignore[reportArgumentType]
    found = {
        "encode_per_second": cost.encode_per_second,
        "decode_per_second": cost.decode_per_second,
        "weights_megabytes": cost.weights_megabytes,
        "parameters": float(parts["all"] - parts.get("teacher", 0)),
        "backbone": float(sum(parts.get(name, 0) for name in BACKBONE_PARTS)),
        "tokens": float(model.num_tokens),
        "codes_per_token": float(model.codes_per_token),
        "codebook_size": float(model.vocab_size),
    }
    return found if cost.peak_megabytes is None else found | {"peak_megabytes": cost.peak_megabytes}


MEASUREMENTS: tuple[Callable[[Tokenizer, ExperimentContext], dict[str, float]], ...] = (_meaning, _cost)
"""What is measured besides reconstruction and usage: functions of a trained tokenizer that return figures by name."""
