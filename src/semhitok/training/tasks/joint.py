"""Joint training of both branches from scratch: the control for SemHiTok's training in stages (paper section 3).

Architecture, losses and codebook maintenance are those of stages 1 and 2, summed over the same images; the teacher
stays frozen. The differences: the semantic codebook still moves while the sub-codebooks under it are trained, and with
``pixel_gradient`` the reconstruction losses reach the semantic branch through its straight-through codes, which is the
trade-off that the paper's stages avoid.

Shapes: B images, N tokens, D teacher channels, d_s semantic channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from semhitok.data.feed import Batch
from semhitok.distributed import averaged_gradients
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.state import TrainState
from semhitok.training.tasks.joint_config import JointConfig
from semhitok.training.tasks.pixel import PerceptualDistance, PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.types import Quantized


class JointTask:
    """Trains ``model.semantic`` and the pixel branch of ``model`` in place, in one run.

    Args:
        model: an untrained model. The teacher's features come from ``batch.extras["features"]`` (cached) or from the
            model; semantic ids are always computed, because they change from step to step.
        config: see ``JointConfig``.
        perceptual: distance (prediction, target) -> (B,), required if ``perceptual_weight`` > 0.

    Raises:
        ValueError: as for ``PixelTask``, or ``decoder_only`` is set.
    """

    def __init__(
        self, model: SemHiTokModel, config: JointConfig, *, perceptual: PerceptualDistance | None = None
    ) -> None:
        if config.pixel.decoder_only:
            raise ValueError("joint training trains the whole pixel branch, and its configuration has decoder_only set")
        self.model = model
        self.config = config
        self.semantic = SemanticTask(model, config.semantic)
        self.pixel = PixelTask(model, config.pixel, perceptual=perceptual, fresh_codebook=True)
        model.semantic.requires_grad_(True).train()  # frozen by the pixel task

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``. ``loss`` is the sum; metrics of the semantic branch have ``semantic`` in their names."""
        features = self.semantic.begin(microbatches, state)
        self.pixel.maintainer.begin(state)
        semantic_forwards, pixel_forwards = [], []
        for index, (batch, features_BND) in enumerate(zip(microbatches, features, strict=True)):
            semantic = self.semantic.losses(features_BND, batch)
            quantized = semantic.quantized if self.config.pixel_gradient else semantic.detached().quantized
            pixel = self.pixel.losses(batch, state, index, Quantized(quantized.codes, quantized.ids, {}))
            trained = chain(self.semantic.branch.parameters(), self.pixel.parameters())
            with averaged_gradients(trained, now=index + 1 == len(microbatches)):
                ((semantic.terms["loss"] + pixel.terms["loss"]) * (1 / len(microbatches))).backward()
            semantic_forwards.append(semantic.detached())
            pixel_forwards.append(pixel.detached())
        found = self.semantic.finish(semantic_forwards, state)
        metrics = self.pixel.finish(pixel_forwards, state)
        total = found["loss"] + metrics["loss"]
        return metrics | {_semantic_name(name): value for name, value in found.items()} | {"loss": total}

    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See ``PixelTask.preview``."""
        return self.pixel.preview(batch)

    def state_dict(self) -> dict[str, Any]:
        """The states of both tasks."""
        return {"semantic": self.semantic.state_dict(), "pixel": self.pixel.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.semantic.load_state_dict(state["semantic"])
        self.pixel.load_state_dict(state["pixel"])

    def export(self, directory: Path | None) -> None:
        """Write the model with the averaged pixel branch and the current semantic branch, as after stages 1 and 2."""
        self.pixel.export(directory)

    def describe(self) -> str:
        """See ``Task.describe``."""
        return f"joint: {self.semantic.describe()}; {self.pixel.describe()}"


def _semantic_name(name: str) -> str:
    """``loss/l1`` -> ``loss/semantic_l1``, ``usage`` -> ``semantic_usage``, ``loss`` -> ``loss/semantic``."""
    if name == "loss":
        return "loss/semantic"
    kind, slash, term = name.rpartition("/")
    return f"{kind}{slash}semantic_{term}"
