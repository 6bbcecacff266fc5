"""A tiny tokenizer with its teacher, data and recipe: shared by the tests of tokenizers, tasks and recipes.

Other processes come from a fork server that has imported everything once: starting one costs next to nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from semhitok.data.feed import Batch, Feed, MemoryFeed
from semhitok.data.sources import ImageFolder
from semhitok.data.transforms import to_float
from semhitok.recipes import Recipe
from semhitok.recipes.recipe import DataConfig, EnhancedDecoder, PixelStage, SemanticStage
from semhitok.runs.semhitok import run_semhitok
from semhitok.runs.stage_runner import RunOptions
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.training.loop import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.state import TrainState
from semhitok.training.task import Task
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.training.tasks.semantic_config import SemanticConfig
from semhitok.types import STAGES, Stage

SIZE = 32
STEPS = 12
ARCHITECTURE: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 8,
    "semantic_codebook_size": 16,
    "semantic_dim": 6,
    "semantic_decoder_layers": 1,
    "semantic_decoder_heads": 2,
    "subcodebook_size": 4,
    "pixel_dim": 4,
    "encoder_layers": 1,
    "encoder_width": 16,
    "encoder_heads": 2,
    "decoder_layers": 2,
    "decoder_width": 16,
    "decoder_heads": 2,
    "refine_channels": 4,
}

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["semhitok.runs.semhitok", "torch.utils.tensorboard", "tests.tiny"])


def tower_config(image_size: int = SIZE, patch_size: int = 8) -> SiglipVisionConfig:
    """A vision tower of two layers of 16 channels."""
    return SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=patch_size,
    )


def tiny_config(**changes: Any) -> SemHiTokConfig:
    """32 px, 16 tokens, 16 x 4 codes; ``changes`` are fields of the configuration."""
    fields = {"teacher_config": TeacherConfig(tower_config(), image_size=SIZE)} | ARCHITECTURE | changes
    return SemHiTokConfig(**fields)


def shake(module: nn.Module, scale: float = 0.1) -> None:
    """Random biases, norms and position encodings: where they begin at 0 or 1, a mistake would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


def tiny_model(seed: int = 0, **changes: Any) -> SemHiTokModel:
    """Random weights, codebooks fitted to random images so that many codes are in use."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SemHiTokModel(tiny_config(**changes)).eval()
        shake(model)
    if model.config.encoder:
        images = pixels(24, seed=1000 + seed, size=model.config.image_size)
        with torch.no_grad():
            assert model.semantic.projection is not None
            vectors_BND = model.semantic.projection(model.teacher_features(images))
            model.semantic.quantizer.initialise(vectors_BND.flatten(0, 1), seed=seed)
            groups = model.pixel_quantizer.grouping(model.encode_semantic(images).ids).flatten()
            model.pixel_quantizer.initialise(model.pixel_features(images).flatten(0, 1), groups, seed=seed)
    return model


def tiny_images(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """(count,3,size,size) uint8: soft random blots under noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    soft = nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
    noise = torch.rand(count, 3, size, size, generator=generator)
    return ((0.8 * soft + 0.2 * noise) * 255).to(torch.uint8)


def pixels(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """(count,3,size,size) in [-1,1]."""
    return to_float(tiny_images(count, seed, size))


def tiny_feed(count: int = 24, *, extras: Mapping[str, np.ndarray] | None = None, flip: bool = False) -> MemoryFeed:
    return MemoryFeed(tiny_images(count), seed=3, flip=flip, extras=extras)


def optimizer(rate: float = 3e-3, **changes: Any) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=rate, warmup_steps=1, **changes)


def semantic_config(**changes: Any) -> SemanticConfig:
    """Initialisation, revival and its end all fall into a run of ``STEPS`` steps."""
    fields = {"optimizer": optimizer(), "revive_every": 3, "revive_below": 0.5, "precision": "fp32"} | changes
    return SemanticConfig(**fields)


def pixel_config(**changes: Any) -> PixelConfig:
    """Initialisation, revival and the adversarial loss all begin within a run of ``STEPS`` steps."""
    fields = {
        "optimizer": optimizer(),
        "discriminator_optimizer": optimizer(1e-3, beta1=0.5, weight_decay=0.0),
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.1,
        "adversarial_start": 3,
        "discriminator_channels": 8,
        "initialise_step": 2,
        "revive_every": 3,
        "revive_below": 0.5,
        "average_decay": 0.9,
        "precision": "fp32",
    }
    return PixelConfig(**(fields | changes))


def loop_config(**changes: Any) -> LoopConfig:
    fields = {"steps": STEPS, "batch_size": 8, "log_every": 4, "checkpoint_every": 4, "first_preview_seconds": 1e9}
    return LoopConfig(**(fields | changes))


def tiny_recipe(teacher: Path, **changes: Any) -> Recipe:
    """All four stages at tiny size; ``changes`` are fields of the recipe."""
    pixel = PixelStage(loop=loop_config(), task=pixel_config())
    recipe = Recipe(
        name="tiny",
        teacher=str(teacher),
        teacher_image_size=SIZE,
        model=dict(ARCHITECTURE),
        enhanced_decoder=EnhancedDecoder(layers=3, width=16, heads=2, grow=True),
        data=DataConfig(workers=0),
        semantic=SemanticStage(loop=loop_config(accumulation=2), task=semantic_config()),
        pixel=pixel,
        pixel_finetune=pixel,
        decoder=replace(pixel, task=pixel_config(decoder_only=True)),
    )
    return replace(recipe, **changes)


class Distance(nn.Module):
    """Stands for the perceptual network; not a number from call ``broken_at`` on."""

    def __init__(self, broken_at: int | None = None) -> None:
        super().__init__()
        self.calls, self.broken_at = 0, broken_at
        self.taps = nn.Conv2d(3, 4, 3).requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        distance = (self.taps(prediction) - self.taps(target)).square().mean(dim=(1, 2, 3))
        return distance * float("nan") if self.calls == self.broken_at else distance


def pixel_task(
    model: SemHiTokModel | None = None,
    *,
    perceptual: nn.Module | None = None,
    fresh_codebook: bool = False,
    **changes: Any,
) -> PixelTask:
    """A task on ``model``, or on a new tiny one; ``changes`` are fields of its configuration."""
    config = pixel_config(**changes)
    return PixelTask(model or tiny_model(), config, perceptual=perceptual, fresh_codebook=fresh_codebook)


def tiny_batch(size: int = 8, start: int = 0, **options: Any) -> Batch:
    return next(tiny_feed(**options).batches(start, size))


def take_steps(
    task: Task, feed: Feed, steps: int, *, batch_size: int = 8, accumulation: int = 1, state: TrainState | None = None
) -> list[dict[str, float]]:
    """What the loop does with a task, without the loop; the metrics of each step."""
    state = state or TrainState(total_steps=steps)
    batches, found = feed.batches(state.samples, batch_size), []
    for _ in range(steps):
        state.seed_step(0)
        metrics = task.step(next(batches).split(accumulation), state)
        found.append({name: float(value) for name, value in metrics.items()})
        state.step, state.samples = state.step + 1, state.samples + batch_size
    return found


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The state as it is now."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: Mapping[str, Tensor], module: nn.Module) -> set[str]:
    """Names of the tensors that are not bit for bit as they were."""
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def save_teacher(folder: Path) -> Path:
    """A random tower as its users have it: a folder with weights and the image processor's configuration."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        tower = SiglipVisionModel(tower_config()).eval()
        shake(tower)
    tower.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


def save_images(folder: Path, count: int = 24) -> Path:
    """PNG files."""
    folder.mkdir(parents=True)
    for index, image_CHW in enumerate(tiny_images(count)):
        Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).save(folder / f"{index:03d}.png")
    return folder


def run_tiny(recipe: Recipe, images: Path, directory: Path, stages: tuple[Stage, ...] = STAGES, **options: Any):
    """``run_semhitok`` on a folder of images, without a word; ``options`` are those of the run or of the function."""
    given = {name: options.pop(name) for name in ("validation", "images") if name in options}
    return run_semhitok(recipe, ImageFolder(images), tiny_options(directory, **options), stages=stages, **given)


def tiny_options(directory: Path, **options: Any) -> RunOptions:
    """On the CPU, without a word."""
    fixed = {"device": torch.device("cpu"), "data_name": "tiny images", "report": lambda line: None}
    return RunOptions(directory=directory, **(fixed | options))


def run_killed(recipe: Recipe, images: Path, directory: Path, stage: Stage, kill_at: int) -> None:
    """For a process of its own: finish the earlier stages, and die in the midst of step ``kill_at`` of this one."""
    torch.set_num_threads(1)
    run_tiny(recipe, images, directory, STAGES[: STAGES.index(stage)])
    for kind in (SemanticTask, PixelTask):
        kind.step = _killing(kind.step, kill_at)  # type: ignore[method-assign]
    run_tiny(recipe, images, directory, (stage,))


def _killing(step: Callable, kill_at: int) -> Callable:
    def killed(self, microbatches, state):
        metrics = step(self, microbatches, state)
        if state.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return metrics

    return killed


def free_port() -> int:
    """A free port of this machine, below those that the kernel hands out to connections, of which one could take it meanwhile."""
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
            return port
    raise OSError("no port is free between 20000 and 32000")
