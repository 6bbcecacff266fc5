"""The reconstruction loss of images: L1, L2, perceptual and adversarial."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from semhitok.losses import l1_loss, l2_loss
from semhitok.training.state import TrainState
from semhitok.training.tasks.adversarial import Adversary
from semhitok.training.tasks.pixel import PerceptualDistance
from semhitok.training.tasks.precision import Precision, autocast


class VisibleConfig(Protocol):
    """The fields of a task's configuration that the reconstruction loss reads: weights, 0 to leave a term out."""

    @property
    def l1_weight(self) -> float: ...
    @property
    def l2_weight(self) -> float: ...
    @property
    def perceptual_weight(self) -> float: ...
    @property
    def precision(self) -> Precision: ...


def visible_loss(
    config: VisibleConfig,
    target: Tensor,
    reconstruction: Tensor,
    *,
    perceptual: PerceptualDistance | None,
    adversary: Adversary | None,
    last_layer: Tensor,
    state: TrainState,
    index: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, a scalar, and its unweighted terms by name.

    Args:
        config: weights and precision.
        target, reconstruction: images (B,3,H,W) in [-1,1], fp32, the latter with its graph and not clamped.
        perceptual: distance (prediction, target) -> (B,).
        adversary: takes part once it is active.
        last_layer: weight of the decoder's last layer.
        state, index: step of the run and number of the micro-batch, which determine the adversary's augmentations.
    """
    terms: dict[str, Tensor] = {}
    visible = torch.zeros((), device=target.device)
    if config.l1_weight:
        terms["loss/l1"] = l1_loss(reconstruction, target)
        visible = visible + config.l1_weight * terms["loss/l1"]
    if config.l2_weight:
        terms["loss/l2"] = l2_loss(reconstruction, target)
        visible = visible + config.l2_weight * terms["loss/l2"]
    if config.perceptual_weight and perceptual is not None:
        with autocast(config.precision, target.device):
            terms["loss/perceptual"] = perceptual(reconstruction, target).mean()
        visible = visible + config.perceptual_weight * terms["loss/perceptual"]
    if adversary is not None and adversary.active(state):
        visible, found = adversary.add_generator_loss(visible, reconstruction, last_layer, state, index)
        terms |= found
    return visible, terms
