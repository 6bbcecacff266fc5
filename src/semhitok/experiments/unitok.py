"""Experiments with UniTok: the ``unitok_nano`` recipe with other losses, quantizers and projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from semhitok.data.reading import SizedImages
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.labels import ProbeFeatures
from semhitok.evaluation.semantics.language import LanguageMeasurement
from semhitok.experiments.experiment import ExperimentContext
from semhitok.metrics.probe import probe
from semhitok.recipes.unitok import unitok_nano
from semhitok.recipes.unitok_recipe import UniTokRecipe
from semhitok.runs.unitok import run_unitok
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.types import UNITOK_STAGE

PROBE_IMAGES = 2000


def ablation_recipe() -> UniTokRecipe:
    """``unitok_nano`` with 25,600 images per run.

    At the paper's weight of 1 the contrastive loss prevents reconstruction in so short a run, whatever the quantizer (see
    the table of supervision): here its weight is 0.1.
    """
    recipe = unitok_nano()
    loop = replace(
        recipe.loop,
        steps=400,
        batch_size=64,
        preview_every=10**9,
        first_preview_seconds=1e9,
        checkpoint_every=200,
        keep_checkpoints=1,
    )
    optimizer = replace(recipe.task.optimizer, warmup_steps=40)
    task = replace(
        recipe.task,
        optimizer=optimizer,
        contrastive_weight=0.1,
        initialise_step=60,
        revive_every=60,
        average_decay=0.99,
    )
    return replace(recipe, name="unitok-ablation", loop=loop, task=task)


def changed(*, model: Mapping[str, Any] | None = None, task: Mapping[str, Any] | None = None) -> UniTokRecipe:
    """The ablation recipe with changed fields of the model and the losses."""
    recipe = ablation_recipe()
    return replace(recipe, model=recipe.model | dict(model or {}), task=replace(recipe.task, **dict(task or {})))


@dataclass(frozen=True)
class UniTokExperiment:
    """A UniTok to train and measure: reconstruction if it has a decoder, zero-shot classification if it was trained with
    texts, and a linear probe on the mean token.

    Attributes:
        name: name of the experiment.
        recipe: complete; the loop's seed is replaced by the run's.
    """

    name: str
    recipe: UniTokRecipe = field(default_factory=ablation_recipe)

    def settings(self) -> dict[str, Any]:
        """Model, text tower, data and losses."""
        recipe = self.recipe
        return {
            "model": dict(recipe.model),
            "text": asdict(recipe.text),
            "flip": recipe.data.flip,
            "steps": recipe.loop.steps,
            "batch_size": recipe.loop.batch_size,
            "task": asdict(recipe.task),
        }

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        recipe = self.recipe.with_loop(UNITOK_STAGE, seed=seed)
        run = f"{self.name}-seed{seed}"
        folder = context.runs / run
        images = context.images(recipe.model["image_size"], recipe.data)
        context.train_run(run, folder, partial(run_unitok, recipe, context.train, images=images))
        model = UniTokModel.from_pretrained(folder / "model", dtype=torch.float32).eval()
        model.to(context.device)  # pyright: ignore[reportArgumentType]
        metrics: dict[str, float] = {}
        if recipe.task.reconstructs and model.quantizer is not None:
            metrics |= context.measure(model, run)
        processor = UniTokProcessor.from_pretrained(folder / "model") if recipe.task.contrastive_weight else None
        return metrics | _meaning(model, processor, context)


@torch.no_grad()
def _meaning(model: UniTokModel, processor: UniTokProcessor | None, context: ExperimentContext) -> dict[str, float]:
    """Semantics of the tokens: a category probe on their mean after the projection, and with a text tower zero-shot
    classification and retrieval."""
    language = LanguageMeasurement()
    fitted, tested = ProbeFeatures(), ProbeFeatures()
    for batch in SizedImages(context.train, model.config.image_size, limit=PROBE_IMAGES):
        mean_BD, _ = _mean_tokens(model, to_float(batch.images.to(context.device)))
        fitted.add({"tokens": mean_BD}, batch.metadata)
    for batch in SizedImages(context.test, model.config.image_size, limit=context.test_images):
        mean_BD, embedding_BE = _mean_tokens(model, to_float(batch.images.to(context.device)))
        tested.add({"tokens": mean_BD}, batch.metadata)
        language.update(embedding_BE, batch.metadata)
    fitted_ND, tested_ND = (torch.cat(each.features["tokens"]) for each in (fitted, tested))
    result = probe(fitted_ND, fitted.labels, tested_ND, tested.labels, train_groups=fitted.concepts)
    found = {"probe_tokens": result.accuracy, "probe_chance": result.chance}
    scores = language.result(model, processor.tokenizer) if processor is not None else None
    if scores is not None:
        named = scores.zero_shot["categories"]
        found |= {
            "zero_shot": named.top1,
            "zero_shot_balanced": named.balanced_accuracy,
            "zero_shot_chance": named.chance_top1,
        }
        if scores.retrieval is not None:
            recall = scores.retrieval.image_to_text
            found |= {"recall_at_10": recall.at[10], "recall_at_10_chance": recall.chance[10]}
    return found


def _mean_tokens(model: UniTokModel, pixel_values_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over an image's tokens after the projection (B,D), and the image embedding (B,E)."""
    output = model(pixel_values_BCHW, reconstruct=False)
    codes_BNW = output.features if model.quantizer is None else model.quantizer.lookup(output.ids)
    return model.project_up(codes_BNW).mean(dim=1), output.image_embedding
