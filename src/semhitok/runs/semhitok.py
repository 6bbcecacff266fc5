"""Run the stages of a recipe on a data set: each starts from the model that the one before it wrote.

A run lives in one directory::

    semantic/ pixel/ pixel-finetune/ decoder/   one run of the training loop each, with ``model/`` when it has ended
    joint/                                      the same, in place of the first two
    cache/                                      teacher features and stage-1 ids
    */recipe.json                               what each stage was run with, last
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from torch import nn

from semhitok import distributed
from semhitok.data.sample import ImageSource
from semhitok.losses import VGGPerceptual
from semhitok.recipes.recipe import BUILT_IN_TEACHER, EnhancedDecoder, PerceptualDepth, PerceptualKind, Recipe
from semhitok.runs.preparation import Report, TrainingImages, reconstruction_check
from semhitok.storage.cache import cache_directory
from semhitok.teachers import Teacher
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.tokenizers.semhitok.pixel import PixelDecoder
from semhitok.training import compilation
from semhitok.training.loop import Evaluate, train
from semhitok.training.loop_config import LoopConfig
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.task import Task
from semhitok.training.tasks.joint import JointTask
from semhitok.training.tasks.joint_config import JointConfig
from semhitok.training.tasks.pixel import PerceptualDistance, PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.types import STAGES, Stage


def run_stages(
    recipe: Recipe,
    source: ImageSource,
    directory: Path,
    *,
    stages: Sequence[Stage] = STAGES,
    device: torch.device,
    start_from: Path | None = None,
    data_name: str,
    validation: ImageSource | None = None,
    images: TrainingImages | None = None,
    compile_blocks: bool = False,
    report: Report = print,
) -> TrainState:
    """Train the stages in order, resuming where a run in ``directory`` was left; finished stages are skipped.

    Args:
        recipe: what to train.
        source: training images.
        directory: of the run.
        stages: which stages; the first one starts from ``start_from`` or from the stage before it in ``directory``.
        device: to train on.
        start_from: a checkpoint to start from.
        data_name: written into the model's provenance.
        validation: images kept out of training, on which the pixel stages are measured every ``loop.evaluate_every``
            steps and at the end (at most 512 of them; mean PSNR of the weights in training).
        images: those of ``source`` where they have been read before, with their cache; by default they are read here and
            cached in ``directory/cache``.
        compile_blocks: compile the transformer blocks (``torch.compile``), which pays on GPUs.
        report: takes lines for the user.

    Returns:
        The state of the last stage that ran; ``interrupted`` if it was stopped by a signal or by its time limit.

    Raises:
        ValueError: a stage has nothing to start from, or a run in the directory does not fit.
    """
    if distributed.is_main():
        directory.mkdir(parents=True, exist_ok=True)
    state = TrainState(total_steps=0)
    for stage in stages:
        if stage_is_finished(directory / stage, stage):
            report(f"stage {stage} is done")
            continue
        begun = time.perf_counter()  # a time limit covers preparation, too
        if distributed.is_main():
            (directory / stage).mkdir(exist_ok=True)
            content = json.dumps(dataclasses.asdict(recipe), indent=1, default=str)
            (directory / stage / "recipe.json").write_text(content)
        if images is None:
            images = TrainingImages(source, recipe.model["image_size"], recipe.data, directory / "cache", report)
        model = _starting_model(recipe, stage, directory, start_from)
        model.to(device)  # pyright: ignore[reportArgumentType]
        start_from = None
        provenance = {"recipe": recipe.name, "data": data_name, "date": date.today().isoformat()}
        if stage != "semantic" and recipe.pixel_stage(stage).task.perceptual_weight > 0:
            provenance["perceptual"] = f"{recipe.perceptual} to {recipe.perceptual_depth}"
        evaluate = None
        if validation is not None and stage != "semantic":
            evaluate = reconstruction_check(model, validation, recipe.data)
        state = _run_stage(recipe, stage, model, images, directory, report, evaluate, compile_blocks, begun)
        if not state.finished:
            break
        config = model.config
        config.stages = [*config.stages, stage]
        config.provenance = {**config.provenance, stage: provenance | {"steps": state.step, "samples": state.samples}}
        if distributed.is_main():
            config.save_pretrained(directory / stage / "model")
        distributed.from_main(0)  # the other ranks wait for the file before they look for it
    return state


def load_perceptual(kind: PerceptualKind, depth: PerceptualDepth) -> nn.Module:
    """The network of the perceptual loss.

    Raises:
        ValueError: its weights are not there; says how to get them.
    """
    weights = cache_directory() / "weights"
    if kind == "lpips":
        return VGGPerceptual.from_lpips(weights / "vgg16-397923af.pth", weights / "lpips_vgg.pth", deepest_layer=depth)
    path = weights / "vgg16_hed.h5"
    if not path.exists():
        raise ValueError(
            f"the perceptual loss needs VGG16 weights at {path}: run `semhitok data fetch`, or set perceptual_weight to 0"
        )
    return VGGPerceptual.from_hed(path, deepest_layer=depth, pooling="average")


def load_teacher(recipe: Recipe) -> Teacher:
    """The recipe's frozen teacher."""
    if recipe.teacher == BUILT_IN_TEACHER:
        return Teacher.efficientnet_lite0(image_size=recipe.teacher_image_size)
    return Teacher.from_pretrained(recipe.teacher, image_size=recipe.teacher_image_size, layer=recipe.teacher_layer)


def enhance_decoder(model: SemHiTokModel, size: EnhancedDecoder, seed: int) -> SemHiTokModel:
    """A model with a larger decoder (stage 3), everything else as it was.

    A grown decoder reproduces the old one exactly: its blocks are copied, and the new blocks behind them add zero to
    the residual stream until training moves them.

    Raises:
        ValueError: a decoder is to grow in width, or to shrink.
    """
    old = model.config
    if size.grow and (size.width, size.heads) != (old.decoder_width, old.decoder_heads):
        raise ValueError(
            f"a decoder grows in depth only: width {old.decoder_width} and {old.decoder_heads} heads cannot become "
            f"{size.width} and {size.heads}; set grow to false to start it from random weights"
        )
    if size.grow and size.layers < old.decoder_layers:
        raise ValueError(
            f"the enhanced decoder has {size.layers} layers, fewer than the {old.decoder_layers} it grows from"
        )
    sizes = {"decoder_layers": size.layers, "decoder_width": size.width, "decoder_heads": size.heads}
    config = SemHiTokConfig.from_dict(old.to_dict() | sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "enhanced decoder"))
        enhanced = SemHiTokModel(config)
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pixel_decoder.")}
    if size.grow:
        kept |= {f"pixel_decoder.{name}": tensor for name, tensor in model.pixel_decoder.state_dict().items()}
        _silence(enhanced.pixel_decoder, after=old.decoder_layers)
    enhanced.load_state_dict(enhanced.state_dict() | kept)
    return enhanced


@torch.no_grad()
def _silence(decoder: PixelDecoder, after: int) -> None:
    """Let the blocks behind the first ``after`` add nothing to the residual stream."""
    for layer in decoder.transformer.residual_outputs()[2 * after :]:
        layer.weight.zero_()
        layer.bias.zero_()


def _starting_model(recipe: Recipe, stage: Stage, directory: Path, start_from: Path | None) -> SemHiTokModel:
    loop = _loop_config(recipe, stage)
    if stage in ("semantic", "joint"):
        if start_from is not None:
            raise ValueError(f"stage {stage} starts from the teacher, not from a checkpoint: leave out {start_from}")
        torch.manual_seed(derive_seed(loop.seed, "model"))
        return SemHiTokModel.from_teacher(load_teacher(recipe), SemHiTokConfig(**recipe.model))
    needed: Stage = "semantic" if stage == "pixel" else "pixel"
    path = start_from or _newest_model(directory, before=stage)
    if path is None:
        raise ValueError(
            f"stage {stage} starts from a finished stage {needed}, and {directory} has none: train it first"
        )
    model = SemHiTokModel.from_pretrained(path, dtype=torch.float32)
    if not {needed, "joint"} & set(model.config.stages):
        done = ", ".join(model.config.stages) or "none"
        raise ValueError(f"stage {stage} starts from a finished stage {needed}; stages done at {path}: {done}")
    return enhance_decoder(model, recipe.enhanced_decoder, loop.seed) if stage == "decoder" else model


def _newest_model(directory: Path, before: Stage) -> Path | None:
    """The model of the last finished stage in front of ``before``: fine-tuning may be left out, and joint training may
    stand for the first two."""
    earlier: list[Stage] = [*reversed(STAGES[: STAGES.index(before)]), "joint"]
    return next((directory / stage / "model" for stage in earlier if stage_is_finished(directory / stage, stage)), None)


def _loop_config(recipe: Recipe, stage: Stage) -> LoopConfig:
    return recipe.semantic.loop if stage == "semantic" else recipe.pixel_stage(stage).loop


def _run_stage(
    recipe: Recipe,
    stage: Stage,
    model: SemHiTokModel,
    images: TrainingImages,
    directory: Path,
    report: Report,
    evaluate: Evaluate | None,
    compile_blocks: bool,
    begun: float,
) -> TrainState:
    loop, extras = _loop_config(recipe, stage), {}
    report(f"stage {stage}: {loop.steps} steps of {loop.batch_size} images")
    task: Task
    if stage == "semantic":
        extras = images.features(model, recipe.cache_limit)
        task = SemanticTask(model, recipe.semantic.task)
    else:
        config = recipe.pixel_stage(stage).task
        perceptual: PerceptualDistance | None = None
        if config.perceptual_weight > 0:
            perceptual = load_perceptual(recipe.perceptual, recipe.perceptual_depth).to(model.device)
        # The discriminator's first weights must not depend on what this process did before.
        torch.manual_seed(derive_seed(loop.seed, stage, "discriminator"))
        if stage == "joint":
            extras = images.features(model, recipe.cache_limit)
            joint = JointConfig(recipe.semantic.task, config, pixel_gradient=recipe.joint_gradient)
            task = JointTask(model, joint, perceptual=perceptual)
        else:
            extras = images.semantic_ids(model)
            task = PixelTask(model, config, perceptual=perceptual, fresh_codebook=stage == "pixel")
    if compile_blocks:  # after the task: its weight average copies the model as it is
        report(f"{compilation.compile_blocks(model)} blocks are compiled as they first run")
    feed = images.feed(seed=derive_seed(loop.seed, stage), device=model.device, extras=extras)
    return train(task, feed, loop, directory / stage, evaluate=evaluate, begun=begun)
