"""A small teacher trained here: a vision tower trained against frozen caption embeddings (SigLIP, Zhai et al. 2023).

From random weights the sigmoid loss alone learns slowly on few images, so a stronger frozen network provides a starting
signal: at first the tower only reconstructs that network's feature grid through a linear head (cosine + L1, as in stage 1
of the tokenizer), then the contrastive loss is added. Captions are embedded beforehand by a frozen text encoder.

Shapes: B images, N patches, D width of the tower, E channels of a caption embedding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel

from semhitok.data.feed import Batch
from semhitok.distributed import averaged_gradients, broadcast_parameters
from semhitok.losses import distillation_loss, sigmoid_contrastive_loss
from semhitok.training.optim import OptimizerConfig, build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.precision import autocast
from semhitok.training.weight_average import WeightAverage
from semhitok.types import Precision

CAPTIONS = "captions"
SIGNAL = "signal"


@dataclass(frozen=True)
class ContrastiveConfig:
    """Losses and optimizer of the teacher's training.

    Attributes:
        optimizer: AdamW and schedule.
        cosine_weight, l1_weight: factors of the distance to the starting signal, throughout the run.
        contrastive_weight: factor of the sigmoid loss.
        contrastive_from: share of the run after which the sigmoid loss is added.
        initial_scale: initial value of the learned scale of the cosines (SigLIP: 10).
        initial_bias: initial value of the learned bias of the logits. SigLIP's -10 is meant for batches of 32,768; the
            logit of a random pair being the matching one is about -log(batch size).
        average_decay: decay of the weight average that is exported.
        precision: ``bf16`` autocast or ``fp32``.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cosine_weight: float = 1.0
    l1_weight: float = 1.0
    contrastive_weight: float = 1.0
    contrastive_from: float = 0.3
    initial_scale: float = 10.0
    initial_bias: float = -10.0
    average_decay: float = 0.99
    precision: Precision = "bf16"


class ContrastiveTask:
    """Trains ``backbone`` in place.

    A batch has ``extras["captions"]`` (B,E), the embeddings of the images' captions, and ``extras["signal"]`` (B,N,F), the
    features of the network that provides the starting signal. The image embedding is a linear map of the mean over
    patches, not SigLIP's attention pooling: a tokenizer quantizes patches, so these must carry the semantics.

    Pairs are compared within a micro-batch of one rank: accumulation and more ranks reduce the number of negatives.

    Args:
        backbone: a SigLIP tower without pooling head; takes images in [-1,1].
        config: see ``ContrastiveConfig``.
        caption_dim: E.
        signal_dim: F.
    """

    def __init__(
        self, backbone: SiglipVisionModel, config: ContrastiveConfig, *, caption_dim: int, signal_dim: int
    ) -> None:
        width = backbone.config.hidden_size
        self.backbone = backbone
        self.config = config
        self.caption_head = nn.Linear(width, caption_dim).to(backbone.device)
        self.signal_head = nn.Linear(width, signal_dim).to(backbone.device)
        self.calibration = nn.ParameterDict(
            {
                "log_scale": torch.tensor(math.log(config.initial_scale)),
                "bias": torch.tensor(config.initial_bias),
            }
        ).to(backbone.device)
        self.trained = nn.ModuleDict(
            {
                "backbone": backbone,
                "caption_head": self.caption_head,
                "signal_head": self.signal_head,
                "calibration": self.calibration,
            }
        ).train()
        broadcast_parameters(self.trained)
        self.optimizer = build_adamw(self.trained, config.optimizer)
        self.average = WeightAverage(self.trained, decay=config.average_decay)

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``."""
        share = 1 / len(microbatches)
        metrics: dict[str, float | Tensor] = {}
        for number, batch in enumerate(microbatches, start=1):
            terms = self._losses(batch, contrastive=state.step >= self.config.contrastive_from * state.total_steps)
            with averaged_gradients(self.trained.parameters(), now=number == len(microbatches)):
                (terms["loss"] * share).backward()
            for name, value in terms.items():
                metrics[name] = metrics.get(name, 0.0) + value.detach() * share
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        self.average.update(self.trained)
        return metrics

    def preview(self, batch: Batch) -> None:
        """No-op."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Weights in training and averaged, and the optimizer."""
        return {
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a ``state_dict`` strictly."""
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def export(self, directory: Path | None) -> None:
        """Write the tower with averaged weights, and its normalisation, as ``Teacher.from_pretrained`` reads them."""
        if directory is None:
            return
        tower = self.average.module.get_submodule("backbone")
        assert isinstance(tower, SiglipVisionModel)
        tower.save_pretrained(directory)
        side = tower.config.image_size
        processor = {
            "image_processor_type": "SiglipImageProcessor",
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "size": {"height": side, "width": side},
        }
        (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))

    def describe(self) -> str:
        """See ``Task.describe``."""
        count = sum(parameter.numel() for parameter in self.backbone.parameters())
        return f"contrastive teacher: {count / 1e6:.2f}M parameters"

    def _losses(self, batch: Batch, *, contrastive: bool) -> dict[str, Tensor]:
        config, pixel_values = self.config, batch.pixel_values()
        with autocast(config.precision, pixel_values.device):
            patches_BND = self.backbone(pixel_values=pixel_values).last_hidden_state
            restored_BNF = self.signal_head(patches_BND)
            image_BE = self.caption_head(patches_BND.mean(dim=1))
        distance = distillation_loss(restored_BNF.float(), batch.extras[SIGNAL].float())
        loss = config.cosine_weight * distance["cosine"] + config.l1_weight * distance["l1"]
        terms = {f"loss/{name}": value for name, value in distance.items()}
        if contrastive:
            caption_BE = batch.extras[CAPTIONS].float()
            log_scale, bias = self.calibration["log_scale"], self.calibration["bias"]
            terms["loss/contrastive"] = sigmoid_contrastive_loss(image_BE.float(), caption_BE, log_scale.exp(), bias)
            terms["matched"] = _matched(image_BE.detach().float(), caption_BE)
            loss = loss + config.contrastive_weight * terms["loss/contrastive"]
        return {"loss": loss, **terms}


def _matched(image_BE: Tensor, caption_BE: Tensor) -> Tensor:
    """Share of images whose own caption is the nearest one in the batch."""
    cosine_BB = nn.functional.normalize(image_BE, dim=-1) @ nn.functional.normalize(caption_BE, dim=-1).T
    return (cosine_BB.diagonal() >= cosine_BB.amax(dim=1)).float().mean()
