"""Training of the ViT tokenizers of the comparison, in one or two stages.

A run lives in one directory::

    reconstruction/      a run of ``training.loop.train``: encoder, quantizer and decoder, with distillation if the system has it
    understanding/       the semantic decoder over the finished tokenizer's codes, for systems that have this stage
    cache/               the teacher's features, unless the images have a cache of their own
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semhitok.data.sample import ImageSource
from semhitok.nn.patches import resize
from semhitok.quantizers import ProjectedQuantizer
from semhitok.quantizers.dead_codes import keyed_generator
from semhitok.quantizers.kmeans import shared_kmeans
from semhitok.recipes.vit_recipe import ViTRecipe
from semhitok.runs.perceptual import load_perceptual
from semhitok.runs.preparation import TrainingImages
from semhitok.runs.semhitok_models import load_teacher
from semhitok.runs.stage_runner import PreparedStage, RunOptions, StageRunner
from semhitok.runs.validation import reconstruction_check
from semhitok.teachers import Teacher
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerConfig, ViTTokenizerModel
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.tasks.semantic import FEATURES
from semhitok.training.tasks.vit import ViTTask
from semhitok.types import ViTStage

CLUSTERED_VECTORS = 65_536
"""Teacher features from which the frozen table of VQGAN-LC is clustered."""


def run_vit(
    recipe: ViTRecipe,
    source: ImageSource,
    options: RunOptions,
    *,
    validation: ImageSource | None = None,
    images: TrainingImages | None = None,
) -> TrainState:
    """Train all stages of a recipe, see ``StageRunner.run``.

    Args:
        recipe: what to train.
        source: training images.
        options: directory, device.
        validation: held-out images, at most 512 of which are used to evaluate the reconstruction.
        images: the images of ``source``, if already read; by default they are read here.

    Raises:
        ValueError: weights are missing, the recipe contradicts itself, or the directory holds a run that does not match.
    """
    images = images or TrainingImages(
        source, recipe.model["image_size"], recipe.data, options.directory / "cache", options.report
    )
    return StageRunner(_ViT(recipe, options, images, validation)).run(recipe.stages)


@dataclass(frozen=True)
class _TeacherView:
    """A teacher that sees a tokenizer's images; see ``FeatureSource``."""

    teacher: Teacher
    image_size: int
    num_tokens: int
    device: torch.device

    @property
    def config(self) -> Any:
        return SimpleNamespace(image_size=self.image_size, teacher_config=self.teacher.config)

    def teacher_features(self, pixel_values: Tensor) -> Tensor:
        return self.teacher(resize(pixel_values, *self.teacher.size_beside(self.image_size, *pixel_values.shape[-2:])))


@dataclass
class _ViT:
    """See ``System``."""

    recipe: ViTRecipe
    options: RunOptions
    images: TrainingImages
    validation: ImageSource | None
    samples = "samples"

    def folder(self, stage: ViTStage) -> Path:
        return self.options.directory / stage

    def earlier(self, stage: ViTStage) -> Sequence[ViTStage]:
        return () if stage == "reconstruction" else ("reconstruction",)

    def cost(self, stage: ViTStage) -> float:
        loop = self.recipe.stage(stage).loop
        return loop.steps * loop.batch_size * (0.3 if stage == "understanding" else 1.0)

    def prepare(self, stage: ViTStage, start_from: Path | None) -> PreparedStage:
        recipe, part, device = self.recipe, self.recipe.stage(stage), self.options.device
        view = self._view() if recipe.uses_teacher else None
        extras = {} if view is None else self.images.features(view, recipe.cache_limit)
        model = self._starting_model(view, extras, start_from)
        model.to(device)  # pyright: ignore[reportArgumentType]
        perceptual = None
        if part.task.perceptual_weight and not part.task.semantic_only:
            perceptual = load_perceptual(recipe.perceptual, recipe.perceptual_depth).to(device)
        # The discriminator's initial weights must not depend on what this process did before.
        torch.manual_seed(derive_seed(part.loop.seed, stage, "discriminator"))
        task = ViTTask(
            model,
            part.task,
            perceptual=perceptual,
            compute_features=None if view is None else view.teacher_features,
            fresh_codebook=start_from is None,
        )
        needed = extras if part.task.distills or recipe.model.get("semantic_dim", 0) else {}
        feed = self.images.feed(seed=derive_seed(part.loop.seed, stage), device=device, extras=needed)
        evaluate = None
        if self.validation is not None:
            evaluate = reconstruction_check(model, self.validation, recipe.data)
        batch = f"{part.loop.batch_size} images"
        return PreparedStage(model, task, feed, batch, model, evaluate, self._provenance(view))

    def _view(self) -> _TeacherView:
        side = self.recipe.model["image_size"]
        tokens = (side // self.recipe.model["patch_size"]) ** 2
        teacher = load_teacher(self.recipe).to(self.options.device)
        found = math.prod(teacher.grid(self.recipe.teacher_image_size, self.recipe.teacher_image_size))
        if found != tokens:
            raise ValueError(
                f"the teacher has {found} tokens at {self.recipe.teacher_image_size} px, but the tokenizer has {tokens}: set "
                "teacher_image_size so that both agree"
            )
        return _TeacherView(teacher, side, tokens, self.options.device)

    def _starting_model(
        self, view: _TeacherView | None, extras: dict[str, np.ndarray], start_from: Path | None
    ) -> ViTTokenizerModel:
        recipe = self.recipe
        if start_from is not None:
            return ViTTokenizerModel.from_pretrained(start_from, dtype=torch.float32)
        fields = dict(recipe.model)
        if view is not None and fields.get("semantic_channels", 0):
            fields["target_dim"] = view.teacher.dim
        if view is not None and fields.get("semantic_dim", 0):
            fields["teacher_config"] = view.teacher.config
        if view is not None and recipe.clustered_table:
            fields["table_dim"] = view.teacher.dim
        torch.manual_seed(derive_seed(recipe.reconstruction.loop.seed, "model"))
        model = ViTTokenizerModel(ViTTokenizerConfig(system=recipe.name, **fields))
        if model.teacher is not None and view is not None:
            model.teacher.load_state_dict(view.teacher.state_dict())
        if recipe.clustered_table and view is not None:
            self._cluster(model, view, extras)
        return model

    def _cluster(self, model: ViTTokenizerModel, view: _TeacherView, extras: dict[str, np.ndarray]) -> None:
        """Set the quantizer's frozen table to cluster centres of the teacher's features."""
        if not isinstance(model.quantizer, ProjectedQuantizer):
            raise ValueError(f"clustered_table needs quantizer projected, got {model.config.quantizer}")
        if FEATURES not in extras:
            raise ValueError(
                "clustered_table needs the teacher's features of images in memory: raise data.memory_limit"
            )
        seed = self.recipe.reconstruction.loop.seed
        features = extras[FEATURES].reshape(-1, view.teacher.dim)
        chosen = torch.randperm(len(features), generator=keyed_generator(seed))[:CLUSTERED_VECTORS].sort().values
        vectors = torch.from_numpy(np.array(features[chosen.numpy()])).float().to(self.options.device)
        self.options.report(f"clustering {len(vectors):,} features of the teacher into {model.vocab_size:,} codes")
        model.quantizer.to(vectors.device)
        model.quantizer.set_table(
            shared_kmeans(vectors, model.vocab_size, iterations=10, seed=derive_seed(seed, "clustered table"))
        )

    def _provenance(self, view: _TeacherView | None) -> dict[str, Any]:
        found: dict[str, Any] = {"system": self.recipe.name}
        if view is not None:
            found["teacher"] = f"{self.recipe.teacher} at {self.recipe.teacher_image_size} px"
        return found


def vit_settings(recipe: ViTRecipe) -> dict[str, Any]:
    """What decides the result of a run besides seed and data, as plain values."""
    found: dict[str, Any] = {"model": dict(recipe.model), "flip": recipe.data.flip}
    if recipe.uses_teacher:
        found |= {"teacher": recipe.teacher, "teacher_image_size": recipe.teacher_image_size}
    if recipe.clustered_table:
        found |= {"clustered_table": True}
    for stage in recipe.stages:
        part = recipe.stage(stage)
        found[stage] = {"steps": part.loop.steps, "batch_size": part.loop.batch_size, "task": asdict(part.task)}
    return found
