"""The adversarial part of a task: the discriminator, its optimizer, and the losses of both sides.

Pairs are (target, reconstruction), images (B,3,H,W) in [-1,1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semhitok.distributed import all_reduce_sum, averaged_gradients, broadcast_parameters, rank
from semhitok.losses import adaptive_weight, augment, cut_at, discriminator_hinge_loss, generator_hinge_loss
from semhitok.training.optim import OptimizerConfig, build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.precision import Precision, autocast

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial settings.

    Attributes:
        weight: factor on top of the adaptive weight (VQGAN, eq. 7).
        start: step at which the discriminator and its loss begin.
        warmup: number of steps from then on over which the weight rises to its value.
        minimum_weight: lower bound of the adaptive weight.
        consistency_weight: weight of the squared difference between the discriminator's logits for two augmentations
            of an image, real or generated (balanced consistency, Zhao et al. 2021).
        diffaug: apply differentiable augmentation to the discriminator's input.
        optimizer: optimizer of the discriminator.
        precision: ``bf16`` autocast or ``fp32``.
    """

    weight: float
    start: int
    diffaug: bool
    optimizer: OptimizerConfig
    precision: Precision
    warmup: int = 0
    minimum_weight: float = 0.0
    consistency_weight: float = 0.0


class Adversary:
    """Trains ``discriminator`` in place, and computes the adversarial loss of the generator side.

    Raises:
        ValueError: a consistency loss is requested without the augmentations that it compares.
    """

    def __init__(self, discriminator: nn.Module, config: AdversarialConfig) -> None:
        if config.consistency_weight and not config.diffaug:
            raise ValueError("consistency_weight is above 0, but without diffaug there is no augmentation to compare")
        self.discriminator, self.config = discriminator, config
        broadcast_parameters(discriminator)
        self.optimizer = build_adamw(discriminator, config.optimizer)

    def active(self, state: TrainState) -> bool:
        """Whether the discriminator and its loss have begun."""
        return state.step >= self.config.start

    def add_generator_loss(
        self, visible: Tensor, reconstruction: Tensor, last_layer: Tensor, state: TrainState, index: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The reconstruction loss plus the weighted adversarial loss, and the terms for the log.

        Args:
            visible: scalar loss computed from ``reconstruction`` alone; its graph down to there is freed.
            reconstruction: (B,3,H,W) images with their graph.
            last_layer: weight of the decoder's last layer.
            index: index of the micro-batch; each has its own augmentations.
        """
        visible = cut_at(reconstruction, visible)
        self.discriminator.requires_grad_(False)
        with autocast(self.config.precision, reconstruction.device):
            logits = self.discriminator(self._augmented(reconstruction, state, f"generator {index}"))
        loss = generator_hinge_loss(logits)
        generator = cut_at(reconstruction, loss)
        weight = adaptive_weight(
            visible, generator, last_layer, minimum=self.config.minimum_weight, all_reduce=all_reduce_sum
        )
        done = state.step - self.config.start + 1
        rise = min(1.0, done / self.config.warmup) if self.config.warmup else 1.0
        terms = {"loss/generator": loss.detach(), "adaptive_weight": weight}
        return visible + self.config.weight * rise * weight * generator, terms

    def step(self, pairs: Sequence[Pair], state: TrainState) -> dict[str, float | Tensor]:
        """Take one optimizer step of the discriminator on the pairs of all micro-batches and return its metrics."""
        config = self.config
        self.discriminator.requires_grad_(True)
        totals = {"loss/discriminator": torch.zeros((), device=pairs[0][0].device)}
        if config.consistency_weight:
            totals["loss/consistency"] = totals["loss/discriminator"].clone()
        for index, pair in enumerate(pairs):
            views = [self._augmented(images, state, f"discriminator {index}") for images in pair]
            if config.consistency_weight:
                views += [self._augmented(images, state, f"consistency {index}") for images in pair]
            with autocast(config.precision, pair[0].device):
                logits = self.discriminator(torch.cat(views)).chunk(len(views))
            hinge = discriminator_hinge_loss(logits[0], logits[1]) / len(pairs)
            loss = hinge
            totals["loss/discriminator"] += hinge.detach()
            if config.consistency_weight:
                # The mean over real and generated images, as in the hinge loss.
                difference = (torch.cat(logits[2:]).float() - torch.cat(logits[:2]).float()).square().mean()
                loss = loss + config.consistency_weight * difference / len(pairs)
                totals["loss/consistency"] += difference.detach() / len(pairs)
            with averaged_gradients(self.discriminator.parameters(), now=index + 1 == len(pairs)):
                loss.backward()
        taken = take_step(self.optimizer, config.optimizer, state.step - config.start, state.total_steps - config.start)
        return {**totals, "discriminator_gradient_norm": taken["gradient_norm"]}

    def state_dict(self) -> dict[str, Any]:
        """The discriminator's weights and optimizer state."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["discriminator_optimizer"])

    def _augmented(self, images: Tensor, state: TrainState, purpose: str) -> Tensor:
        if not self.config.diffaug:
            return images
        return augment(images, generator=state.generator(f"{purpose}, rank {rank()}"))
