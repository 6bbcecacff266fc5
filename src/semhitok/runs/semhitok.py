"""SemHiTok's stages on a data set of images (paper, section 3).

A run lives in one directory::

    semantic/ pixel/ pixel-finetune/ decoder/   one run of the training loop each, with ``model/`` once it has ended
    joint/                                      the same, replacing the first two
    cache/                                      teacher features and stage-1 ids; ids of streamed images in many files
    */recipe.json                               the recipe that each stage was last run with
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from semhitok.data.sample import ImageSource
from semhitok.recipes.recipe import Recipe
from semhitok.runs.perceptual import load_perceptual
from semhitok.runs.preparation import TrainingImages
from semhitok.runs.semhitok_models import enhance_decoder, load_teacher
from semhitok.runs.stage_runner import PreparedStage, RunOptions, StageRunner
from semhitok.runs.validation import reconstruction_check
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.rounding import round_weights
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.task import Task
from semhitok.training.tasks.joint import JointTask
from semhitok.training.tasks.joint_config import JointConfig
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.types import STAGES, Stage

# Fractions of a time limit for each stage, roughly by their cost. ``joint`` replaces the first two.
COSTS: dict[Stage, float] = {"semantic": 0.1, "pixel": 0.45, "pixel-finetune": 0.25, "decoder": 0.2, "joint": 0.55}
# Stages that a stage can start from, in order of preference: fine-tuning is optional, and ``joint`` replaces the first two.
EARLIER: dict[Stage, tuple[Stage, ...]] = {
    "pixel": ("semantic", "joint"),
    "pixel-finetune": ("pixel", "joint"),
    "decoder": ("pixel-finetune", "pixel", "joint"),
}


def run_semhitok(
    recipe: Recipe,
    source: ImageSource,
    options: RunOptions,
    *,
    stages: Sequence[Stage] = STAGES,
    validation: ImageSource | None = None,
    images: TrainingImages | None = None,
) -> TrainState:
    """Train the stages in order, see ``StageRunner.run``.

    Args:
        recipe: what to train.
        source: training images.
        options: directory, device, starting checkpoint.
        stages: stages to train.
        validation: held-out images, at most 512 of which are used to evaluate the pixel stages (mean PSNR of the current
            weights) every ``loop.evaluate_every`` steps and at the end.
        images: the images of ``source`` with their cache, if already read; by default they are read here and cached in
            ``directory/cache``.
    """
    images = images or TrainingImages(
        source, recipe.model["image_size"], recipe.data, options.directory / "cache", options.report
    )
    return StageRunner(_SemHiTok(recipe, options, images, validation)).run(stages)


@dataclass
class _SemHiTok:
    """See ``System``."""

    recipe: Recipe
    options: RunOptions
    images: TrainingImages
    validation: ImageSource | None
    samples = "samples"

    def folder(self, stage: Stage) -> Path:
        return self.options.directory / stage

    def earlier(self, stage: Stage) -> Sequence[Stage]:
        return EARLIER.get(stage, ())

    def cost(self, stage: Stage) -> float:
        return COSTS[stage]

    def prepare(self, stage: Stage, start_from: Path | None) -> PreparedStage:
        recipe, loop = self.recipe, self.recipe.stage(stage).loop
        model = self._starting_model(stage, start_from)
        model.to(self.options.device)  # pyright: ignore[reportArgumentType]
        evaluate, provenance = None, {}
        if stage != "semantic":
            if self.validation is not None:
                evaluate = reconstruction_check(model, self.validation, recipe.data, _target_and_reconstruction)
            if recipe.pixel_stage(stage).task.perceptual_weight > 0:
                provenance = {"perceptual": f"{recipe.perceptual} to {recipe.perceptual_depth}"}
        if stage in ("semantic", "joint"):
            extras = self.images.features(model, recipe.cache_limit)
        else:  # a dry run takes one step only
            samples = 0 if self.options.dry_run else loop.steps * loop.batch_size
            extras = self.images.semantic_ids(model, samples=samples, limit=recipe.cache_limit)
        task = self._task(stage, model)
        feed = self.images.feed(seed=derive_seed(loop.seed, stage), device=model.device, extras=extras)
        return PreparedStage(model, task, feed, f"{loop.batch_size} images", model, evaluate, provenance)

    def _starting_model(self, stage: Stage, start_from: Path | None) -> SemHiTokModel:
        recipe, seed = self.recipe, self.recipe.stage(stage).loop.seed
        if stage not in EARLIER:
            if start_from is not None:
                raise ValueError(f"stage {stage} starts from the teacher, not from a checkpoint: omit {start_from}")
            torch.manual_seed(derive_seed(seed, "model"))
            return self._rounded(SemHiTokModel.from_teacher(load_teacher(recipe), SemHiTokConfig(**recipe.model)))
        assert start_from is not None, "the runner finds a checkpoint or raises"
        model = SemHiTokModel.from_pretrained(start_from, dtype=torch.float32)
        if not set(EARLIER[stage]) & set(model.config.stages):
            done = ", ".join(model.config.stages) or "none"
            needed = " or ".join(EARLIER[stage])
            raise ValueError(
                f"stage {stage} starts from a finished stage {needed}; stages done at {start_from}: {done}"
            )
        return self._rounded(enhance_decoder(model, recipe.enhanced_decoder, seed) if stage == "decoder" else model)

    def _rounded(self, model: SemHiTokModel) -> SemHiTokModel:
        if self.recipe.rounded:
            round_weights(model)
        return model

    def _task(self, stage: Stage, model: SemHiTokModel) -> Task:
        recipe = self.recipe
        if stage == "semantic":
            return SemanticTask(model, recipe.semantic.task)
        part, perceptual = recipe.pixel_stage(stage), None
        if part.task.perceptual_weight > 0:
            perceptual = load_perceptual(recipe.perceptual, recipe.perceptual_depth).to(model.device)
        # The discriminator's initial weights must not depend on what this process did before.
        torch.manual_seed(derive_seed(part.loop.seed, stage, "discriminator"))
        if stage == "joint":
            config = JointConfig(recipe.semantic.task, part.task, pixel_gradient=recipe.joint_gradient)
            return JointTask(model, config, perceptual=perceptual)
        return PixelTask(model, part.task, perceptual=perceptual, fresh_codebook=stage == "pixel")


def _target_and_reconstruction(model: SemHiTokModel, images: Tensor) -> tuple[Tensor, Tensor]:
    encoded = model.encode(images)
    return model.pixel_view(images), model.decode(encoded.ids, encoded.grid)
