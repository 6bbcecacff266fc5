"""Experiments with SemHiTok: a recipe at ablation size, whose stages are shared by experiments with equal settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semhitok.data.reading import SizedImages
from semhitok.data.transforms import to_float
from semhitok.evaluation.semantics.variance import GroupedVariance, raw_patches
from semhitok.experiments.experiment import ExperimentContext
from semhitok.quantizers.allotment import allot_sizes
from semhitok.quantizers.semantic_groups import GroupKind, semantic_groups
from semhitok.recipes.nano import nano
from semhitok.recipes.recipe import EnhancedDecoder, PixelStage, Recipe
from semhitok.runs.semhitok import run_semhitok
from semhitok.storage.array_cache import digest_of_text
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.training.state import derive_seed
from semhitok.types import STAGES, Stage

SEMANTIC_FIELDS = ("image_size", "patch_size")
SEMANTIC_PREFIXES = ("teacher.", "semantic.")
PROBE_IMAGES = 2000
ALLOTMENT_IMAGES = 4000
LARGEST_OVER_MEAN = 4  # no sub-codebook is larger than this many times the mean


def ablation_recipe() -> Recipe:
    """A ``nano`` small enough for tables in CPU hours, not days: width 128, 2 + 3 layers, 24,000 images per run."""
    recipe = nano()
    size = {"encoder_layers": 2, "encoder_width": 128, "decoder_layers": 3, "decoder_width": 128, "refine_channels": 0}
    semantic, pixel = recipe.semantic, recipe.pixel
    quiet = {"preview_every": 10**9, "first_preview_seconds": 1e9, "checkpoint_every": 500, "keep_checkpoints": 1}
    pixel = replace(
        pixel,
        loop=replace(pixel.loop, steps=1500, batch_size=16, **quiet),
        task=replace(
            pixel.task,
            optimizer=replace(pixel.task.optimizer, warmup_steps=100),
            initialise_step=150,
            revive_every=150,
        ),
    )
    finetune = recipe.pixel_finetune
    finetune = replace(
        finetune,
        loop=replace(pixel.loop, steps=400),
        task=replace(
            finetune.task,
            optimizer=replace(finetune.task.optimizer, warmup_steps=50),
            discriminator_optimizer=replace(finetune.task.discriminator_optimizer, warmup_steps=50),
            adversarial_start=50,
            revive_every=100,
        ),
    )
    decoder_loop = replace(pixel.loop, steps=750)
    return replace(
        recipe,
        name="ablation",
        model=recipe.model | size,
        enhanced_decoder=EnhancedDecoder(layers=6, width=128, heads=4, grow=True),
        semantic=replace(
            semantic,
            loop=replace(semantic.loop, steps=300, batch_size=128, **quiet),
            task=replace(semantic.task, revive_every=25),
        ),
        pixel=pixel,
        pixel_finetune=finetune,
        decoder=replace(recipe.decoder, loop=decoder_loop, task=replace(pixel.task, decoder_only=True)),
    )


@dataclass(frozen=True)
class SemanticGroups:
    """One pixel codebook for each of ``groups`` groups of semantic codes, see ``quantizers.semantic_groups``."""

    kind: GroupKind
    groups: int


@dataclass(frozen=True)
class SemHiTokExperiment:
    """A SemHiTok that is trained from stage 1 on and measured after its last stage.

    Attributes:
        name: name of the experiment.
        recipe: complete; its loops' seeds are replaced by the run's.
        stages: in order. A stage that has the same settings as in another experiment, as do its predecessors, is trained
            once, so that experiments differ in nothing else.
        adaptive: replace m by sub-codebook sizes with the same total, chosen by the frequency of each semantic code in the
            training images and the variance of its pixels.
        probe: also fit the category probe on the codes.
        grouped: replace one sub-codebook for each semantic code by one for each group of codes, found in the trained stage 1.
    """

    name: str
    recipe: Recipe = field(default_factory=ablation_recipe)
    stages: tuple[Stage, ...] = ("semantic", "pixel")
    adaptive: bool = False
    probe: bool = False
    grouped: SemanticGroups | None = None

    def settings(self) -> dict[str, Any]:
        """Model, teacher, data and the trained stages."""
        found = _settings(self.recipe, self.stages) | ({"adaptive": True} if self.adaptive else {})
        return found if self.grouped is None else found | {"grouped": asdict(self.grouped)}

    def run(self, context: ExperimentContext, seed: int) -> dict[str, float]:
        """See ``Experiment``."""
        model = self.train(context, seed)
        tokenizer = SemHiTokModel.from_pretrained(model, dtype=torch.float32).eval()
        tokenizer.to(context.device)  # pyright: ignore[reportArgumentType]
        metrics = context.measure(
            tokenizer,
            f"{self.name}-seed{seed}",
            reconstruction=self.stages != ("semantic",),
            probe_images=PROBE_IMAGES if self.probe else 0,
        )
        return metrics | {"semantic_cosine": _cosine_to_teacher(tokenizer, context)}

    def train(self, context: ExperimentContext, seed: int) -> Path:
        """Train the unfinished stages, resuming; returns the folder of the last stage's model.

        Raises:
            InterruptionError: stopped by a signal.
        """
        model: Path | None = None
        images = context.images(self.recipe.model["image_size"], self.recipe.data)
        for stage, recipe, folder in self._stages(context, seed):
            start_from = model
            if stage == "pixel" and not stage_is_finished(folder / stage, stage):
                assert model is not None, "the pixel stage follows the semantic stage"
                start_from = with_pixel_branch(recipe, model, folder / "start", seed)
            train = partial(run_semhitok, recipe, context.train, stages=(stage,), images=images)
            title = f"{self.name}, seed {seed}: stage {stage}"
            context.train_run(title, folder, train, start_from=start_from)
            model = folder / stage / "model"
        assert model is not None, "an experiment has at least one stage"
        return model

    def model_folder(self, context: ExperimentContext, seed: int) -> Path | None:
        """The folder of the trained model, None unless all stages are finished; nothing is trained."""
        model: Path | None = None
        for stage, _, folder in self._stages(context, seed):
            if not stage_is_finished(folder / stage, stage):
                return None
            model = folder / stage / "model"
        return model

    def _stages(self, context: ExperimentContext, seed: int) -> Iterator[tuple[Stage, Recipe, Path]]:
        """Each stage with its complete recipe and the folder of its run; a stage must be finished before the next is asked for."""
        recipe, model = _seeded(self.recipe, seed), Path()
        for count, stage in enumerate(self.stages, start=1):
            if stage == "pixel":
                recipe = self._after_stage_1(recipe, model, context, seed)
            trained = _semantic_recipe(recipe) if stage == "semantic" else recipe
            digest = digest_of_text(json.dumps(_settings(trained, self.stages[:count]), sort_keys=True))[:10]
            folder = context.runs / f"{stage}-{digest}-seed{seed}"
            yield stage, trained, folder
            model = folder / stage / "model"

    def _after_stage_1(self, recipe: Recipe, semantic: Path, context: ExperimentContext, seed: int) -> Recipe:
        """The recipe with what only the trained stage 1 can tell: sizes of sub-codebooks, groups of semantic codes."""
        fields: dict[str, Any] = {}
        if self.adaptive:
            fields["subcodebook_sizes"] = _adaptive_sizes(recipe, semantic, context)
        if self.grouped is not None:
            groups = _groups_of_codes(self.grouped, semantic, seed)
            fields |= {"pixel_codebook": "grouped", "semantic_groups": groups}
        return replace(recipe, model=recipe.model | fields)


def changed(*, model: Mapping[str, Any] | None = None, pixel: Mapping[str, Any] | None = None, **fields: Any) -> Recipe:
    """The ablation recipe with changed fields of the model, the pixel stage's task and the recipe itself."""
    recipe = ablation_recipe()
    return replace(
        recipe,
        model=recipe.model | dict(model or {}),
        pixel=replace(recipe.pixel, task=replace(recipe.pixel.task, **dict(pixel or {}))),
        **fields,
    )


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    for stage in STAGES:
        recipe = recipe.with_loop(stage, seed=seed)
    return recipe


def _semantic_recipe(recipe: Recipe) -> Recipe:
    """The recipe for stage 1: a pixel branch of fixed size, whatever the experiment's own."""
    own = {name: value for name, value in recipe.model.items() if _is_semantic(name)}
    return replace(recipe, model=ablation_recipe().model | own)


def _is_semantic(name: str) -> bool:
    return name.startswith("semantic_") or name in SEMANTIC_FIELDS


def _settings(recipe: Recipe, stages: tuple[Stage, ...]) -> dict[str, Any]:
    model = recipe.model if stages != ("semantic",) else {k: v for k, v in recipe.model.items() if _is_semantic(k)}
    found: dict[str, Any] = {
        "teacher": recipe.teacher,
        "teacher_image_size": recipe.teacher_image_size,
        "model": dict(model),
        "flip": recipe.data.flip,
    }
    if "joint" in stages:
        found |= {"joint_gradient": recipe.joint_gradient, "semantic_losses": asdict(recipe.semantic.task)}
    for stage in stages:
        part = recipe.stage(stage)
        found[stage] = {
            "steps": part.loop.steps,
            "batch_size": part.loop.batch_size,
            "task": asdict(part.task),
        }
        if isinstance(part, PixelStage) and part.task.perceptual_weight > 0:
            found[stage] |= {"perceptual": recipe.perceptual, "perceptual_depth": recipe.perceptual_depth}
    if "decoder" in stages:
        found["enhanced_decoder"] = asdict(recipe.enhanced_decoder)
    return found


def _adaptive_sizes(recipe: Recipe, semantic: Path, context: ExperimentContext) -> list[int]:
    """Sub-codebook sizes from each semantic code's frequency and the variance of its pixels, on training images."""
    model = SemHiTokModel.from_pretrained(semantic, dtype=torch.float32).eval()
    model.to(context.device)  # pyright: ignore[reportArgumentType]
    size = recipe.model["semantic_codebook_size"]
    variance = GroupedVariance(size)
    for batch in SizedImages(context.train, model.config.image_size, limit=ALLOTMENT_IMAGES):
        pixel_values = to_float(batch.images.to(context.device))
        with torch.no_grad():
            ids_N = model.encode_semantic(pixel_values).ids.flatten().cpu()
        variance.update(raw_patches(model, pixel_values), ids_N)
    mean = recipe.model["subcodebook_size"]
    dim = recipe.model["pixel_dim"] - 1
    return allot_sizes(variance.counts_K, variance.errors(), size * mean, dim=dim, maximum=LARGEST_OVER_MEAN * mean)


@torch.no_grad()
def _groups_of_codes(grouped: SemanticGroups, semantic: Path, seed: int) -> list[int]:
    """The group of each semantic code of a trained stage 1."""
    model = SemHiTokModel.from_pretrained(semantic, dtype=torch.float32)
    codes_KD = model.semantic.quantizer.lookup(torch.arange(model.config.semantic_codebook_size))
    return semantic_groups(codes_KD, grouped.groups, grouped.kind, seed=derive_seed(seed, "groups"))


@torch.no_grad()
def _cosine_to_teacher(model: SemHiTokModel, context: ExperimentContext) -> float:
    """Mean cosine between the teacher's features of the test images and their reconstruction by the semantic decoder."""
    cosines = []
    for batch in SizedImages(context.test, model.config.image_size, limit=context.test_images):
        pixel_values = to_float(batch.images.to(context.device))
        encoded = model.encode(pixel_values)
        restored = model.decode_semantic(encoded.ids, encoded.grid)
        cosines.append(torch.cosine_similarity(restored, model.teacher_features(pixel_values), dim=-1).flatten())
    return torch.cat(cosines).mean().item()


def with_pixel_branch(recipe: Recipe, semantic: Path, folder: Path, seed: int) -> Path:
    """A checkpoint with a trained semantic branch and a fresh pixel branch as configured by the recipe, for stage ``pixel``.

    Args:
        recipe: its model decides the pixel branch and must have the semantic branch of the checkpoint.
        semantic: folder of a model after stage ``semantic``.
        folder: where to write; returned.
        seed: of the fresh weights.
    """
    trained = SemHiTokModel.from_pretrained(semantic, dtype=torch.float32)
    config = SemHiTokConfig(
        teacher_config=trained.config.teacher_config,
        stages=trained.config.stages,
        provenance=trained.config.provenance,
        **recipe.model,
    )
    torch.manual_seed(derive_seed(seed, "model"))
    model = SemHiTokModel(config)
    kept = {name: value for name, value in trained.state_dict().items() if name.startswith(SEMANTIC_PREFIXES)}
    model.load_state_dict(model.state_dict() | kept)
    model.save_pretrained(folder)
    return folder
