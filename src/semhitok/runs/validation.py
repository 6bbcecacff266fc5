"""Evaluation of a tokenizer on held-out images while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from semhitok.data.feed import load_into_memory
from semhitok.data.sample import ImageSource
from semhitok.data.sources import evenly_spaced
from semhitok.data.transforms import to_float
from semhitok.recipes.recipe import DataConfig
from semhitok.training.run_logger import Evaluate
from semhitok.training.state import TrainState
from semhitok.training.task import Task

VALIDATION_IMAGES = 512
BATCH = 64
Model = TypeVar("Model", bound=PreTrainedModel)


def validation_images(source: ImageSource, size: int, config: DataConfig) -> Tensor:
    """Up to 512 images (n,3,size,size) uint8, evenly spaced in ``source``."""
    chosen = evenly_spaced(source, VALIDATION_IMAGES)
    return load_into_memory(chosen, size, size, config.fit, workers=0, max_bad_share=config.max_bad_share).images


def images_and_forward(model: PreTrainedModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B,3,H,W) and what the model's forward pass makes of them."""
    return images, model(images).reconstruction


def reconstruction_check(
    model: Model,
    source: ImageSource,
    config: DataConfig,
    reconstruct: Callable[[Model, Tensor], tuple[Tensor, Tensor]] = images_and_forward,
) -> Evaluate:
    """An evaluation for the training loop: mean PSNR in dB of up to 512 images, evenly spaced in ``source``.

    Args:
        model: evaluated in eval mode with its current weights.
        source: held-out images.
        config: how images are read.
        reconstruct: maps the model and images (B,3,H,W) in [-1,1] to targets and reconstructions.
    """
    images = validation_images(source, model.config.image_size, config)

    @torch.no_grad()
    def evaluate(task: Task, state: TrainState) -> dict[str, float]:
        training = [module for module in model.modules() if module.training]
        model.eval()  # training mode would apply drop path
        scores = []
        for part in images.split(BATCH):
            target, reconstruction = reconstruct(model, to_float(part.to(model.device)))
            error_B = (reconstruction.float().clamp(-1, 1) - target).square().mean(dim=(1, 2, 3)) / 4
            scores.append(-10 * torch.log10(error_B))
        for module in training:
            module.training = True
        return {"psnr": torch.cat(scores).mean().item()}

    return evaluate
