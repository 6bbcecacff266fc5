"""Stage 1: the semantic codebook, distilled from the frozen teacher (paper section 3.1, eqs. 2 to 4).

Trains projection, codebook and semantic decoder. Loss: cosine + L1 to the teacher's features + the quantizer's losses.

Shapes: B images, N tokens, D teacher channels, d_s semantic channels, K semantic codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.data.feed import Batch
from semhitok.distributed import broadcast_parameters
from semhitok.losses import distillation_loss
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.codebook_maintenance import CodebookMaintainer
from semhitok.training.optim import build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.microbatches import accumulate
from semhitok.training.tasks.precision import autocast
from semhitok.training.tasks.semantic_config import SemanticConfig
from semhitok.training.tasks.terms import mean_terms
from semhitok.types import Quantized

FEATURES = "features"


@dataclass(frozen=True)
class SemanticForward:
    """One micro-batch through the semantic branch.

    Attributes:
        projected: (B,N,d_s) fp32 vectors before quantization, detached.
        quantized: their straight-through codes and ids.
        terms: scalars by name; ``loss`` is the one to differentiate.
    """

    projected: Tensor
    quantized: Quantized
    terms: dict[str, Tensor]

    def detached(self) -> SemanticForward:
        """The same values, detached, so that the graph can be freed."""
        quantized = Quantized(self.quantized.codes.detach(), self.quantized.ids, {})
        return SemanticForward(self.projected, quantized, {name: value.detach() for name, value in self.terms.items()})


class SemanticTask:
    """Trains ``model.semantic`` in place; features come from ``batch.extras["features"]`` (cached) or from the teacher."""

    def __init__(self, model: SemHiTokModel, config: SemanticConfig) -> None:
        self.model = model.requires_grad_(False).eval()
        self.branch = model.semantic.requires_grad_(True).train()
        self.quantizer = self.branch.quantizer
        self.config = config
        broadcast_parameters(self.branch)
        self.optimizer = build_adamw(self.branch, config.optimizer)
        self.maintainer = CodebookMaintainer(
            self.quantizer, config, model.device, seed_name="semantic codebook", from_batch=True
        )

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``."""
        features = self.begin(microbatches, state)
        forwards = accumulate(
            microbatches, self.branch.parameters(), lambda batch, index: self.losses(features[index], batch)
        )
        return self.finish(forwards, state)

    def begin(self, microbatches: Sequence[Batch], state: TrainState) -> list[Tensor]:
        """The teacher's features (B,N,D) of each micro-batch; initialises the codebook when due. A collective."""
        features = [self._features(batch) for batch in microbatches]
        self.maintainer.begin(state, self._vectors(features) if state.step == self.config.initialise_step else None)
        return features

    def finish(self, forwards: Sequence[SemanticForward], state: TrainState) -> dict[str, float | Tensor]:
        """Update weights and codebook after the backward pass; returns the metrics of the step."""
        metrics = mean_terms([forward.terms for forward in forwards])
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        seen = [(forward.projected, forward.quantized.ids) for forward in forwards]
        return metrics | self.maintainer.finish(seen, state)

    def preview(self, batch: Batch) -> None:
        """None: this stage does not reconstruct pixels."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The branch with its codebook statistics, the optimizer, and the interval's hits and reservoir."""
        return {
            "branch": self.branch.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.maintainer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.branch.load_state_dict(state["branch"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.maintainer.load_state_dict(state)

    def export(self, directory: Path | None) -> None:
        """Write the model. Its weights are not averaged, because codebook and projection must match each other."""
        if directory is None:
            return
        self.model.save_pretrained(directory)

    def describe(self) -> str:
        """See ``Task.describe``."""
        count = sum(parameter.numel() for parameter in self.branch.parameters())
        return f"semantic branch: {count / 1e6:.2f}M parameters, K = {self.model.config.semantic_codebook_size}"

    def _features(self, batch: Batch) -> Tensor:
        if FEATURES in batch.extras:
            return batch.extras[FEATURES].float()
        with autocast(self.config.precision, batch.images_BCHW.device):
            return self.model.teacher_features(batch.pixel_values()).float()

    def _project(self, features_BND: Tensor) -> Tensor:
        assert self.branch.projection is not None, "a tokenizer is trained with its encoder side"
        return self.branch.projection(features_BND)

    def losses(self, features_BND: Tensor, batch: Batch) -> SemanticForward:
        """The forward pass and the loss terms of one micro-batch, given its teacher features."""
        config = self.config
        with autocast(config.precision, features_BND.device):
            projected_BND = self._project(features_BND)
            quantized = self.quantizer(projected_BND)
            grid = self.model.config.grid(*batch.images_BCHW.shape[-2:])
            restored_BND = self.branch.decoder(quantized.codes, grid)
        distillation = distillation_loss(restored_BND.float(), features_BND)
        terms = {f"loss/{name}": value for name, value in (distillation | quantized.losses).items()}
        loss = config.cosine_weight * distillation["cosine"] + config.l1_weight * distillation["l1"]
        loss = loss + config.commitment_weight * quantized.losses["commitment"]
        if "codebook" in quantized.losses:
            loss = loss + config.codebook_weight * quantized.losses["codebook"]
        return SemanticForward(projected_BND.detach().float(), quantized, {"loss": loss, **terms})

    @torch.no_grad()
    def _vectors(self, features: Sequence[Tensor]) -> Tensor:
        """Projected features of all micro-batches, (vectors, d_s)."""
        with autocast(self.config.precision, features[0].device):
            return torch.cat([self._project(features_BND).flatten(0, 1).float() for features_BND in features])
