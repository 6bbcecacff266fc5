"""Training of a ViT tokenizer: reconstruction, the quantizer's own losses, and distillation from a frozen teacher.

One task for all systems of the comparison. With ``semantic_only`` the tokenizer is finished and frozen, and only the semantic
decoder over its codes is trained (TokLIP's semantic encoder).

Shapes: B images, N tokens, D channels of a code, T teacher channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semhitok.data.feed import Batch
from semhitok.distributed import broadcast_parameters
from semhitok.losses import PatchDiscriminator
from semhitok.losses.distillation import distillation_loss
from semhitok.tokenizers.vit_tokenizer.modeling import ViTTokenizerModel
from semhitok.training.codebook_maintenance import CodebookMaintainer
from semhitok.training.optim import build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.adversarial import Adversary
from semhitok.training.tasks.microbatches import TokenizerForward, accumulate
from semhitok.training.tasks.pixel import PerceptualDistance, check_perceptual
from semhitok.training.tasks.precision import autocast
from semhitok.training.tasks.semantic import FEATURES
from semhitok.training.tasks.terms import mean_psnr, mean_terms
from semhitok.training.tasks.visible import visible_loss
from semhitok.training.tasks.vit_config import ViTTrainingConfig
from semhitok.training.weight_average import WeightAverage

ComputeFeatures = Callable[[Tensor], Tensor]
RECONSTRUCTING = ("encoder", "semantic_input", "quantizer", "decoder")


class ViTTask:
    """Trains ``model`` in place.

    The teacher's features come from ``batch.extras["features"]`` (cached), from the teacher that feeds the model, or from
    ``compute_features``.

    Args:
        model: the model, with a semantic decoder if the configuration distills.
        config: see ``ViTTrainingConfig``.
        perceptual: distance (prediction, target) -> (B,), required if ``perceptual_weight`` > 0.
        compute_features: images (B,3,H,W) in [-1,1] -> the teacher's features (B,N,T).
        fresh_codebook: set the codes at ``initialise_step``; False if they are already trained.

    Raises:
        ValueError: a required argument or part of the model is missing, or the weights are not those of the quantizer's losses.
    """

    def __init__(
        self,
        model: ViTTokenizerModel,
        config: ViTTrainingConfig,
        *,
        perceptual: PerceptualDistance | None = None,
        compute_features: ComputeFeatures | None = None,
        fresh_codebook: bool = True,
    ) -> None:
        _check(model, config, perceptual)
        self.model = model.requires_grad_(False).eval()
        names = () if config.semantic_only else RECONSTRUCTING
        names += ("semantic_decoder",) if config.distills else ()
        parts = {name: part for name in names if (part := getattr(model, name)) is not None}
        self.trained = nn.ModuleDict(parts).requires_grad_(True).train()
        model.training = not config.semantic_only
        self.config, self.perceptual, self.compute_features = config, perceptual, compute_features
        self.adversary = None
        if config.adversarial_weight > 0 and not config.semantic_only:
            discriminator = PatchDiscriminator(config.discriminator_channels).to(model.device)
            self.adversary = Adversary(discriminator, config.adversarial)
        broadcast_parameters(self.trained)
        self.optimizer = build_adamw(self.trained, config.optimizer)
        self.average = WeightAverage(self.trained, decay=config.average_decay)
        self.maintainer = CodebookMaintainer(
            model.quantizer,
            config,
            model.device,
            seed_name="vit codebooks",
            fresh_codebook=fresh_codebook and config.initialise_step is not None,
            frozen=config.semantic_only,
        )

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``: one step of the tokenizer, then one of the discriminator."""
        self.maintainer.begin(state)
        forwards = accumulate(
            microbatches, self.trained.parameters(), lambda batch, index: self._losses(batch, state, index)
        )
        metrics = mean_terms([forward.terms for forward in forwards])
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        self.average.update(self.trained)
        if self.adversary is not None and self.adversary.active(state):
            pairs = [forward.pair for forward in forwards if forward.pair is not None]
            metrics |= self.adversary.step(pairs, state)
        return metrics | self.maintainer.finish([(forward.features, forward.ids) for forward in forwards], state)

    @torch.no_grad()
    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and their reconstructions with the current weights."""
        with autocast(self.config.precision, batch.images_BCHW.device):
            reconstruction = self.model(batch.pixel_values(), self._known(batch)).reconstruction
        return batch.pixel_values(), reconstruction.float().clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Current and averaged weights, both optimizers, discriminator, and the interval's hits and reservoir."""
        return {
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            **self.maintainer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        self.maintainer.load_state_dict(state)

    def export(self, directory: Path | None) -> None:
        """Write the model with averaged weights; the current ones are restored afterwards."""
        if directory is None:
            return
        with self.average.applied_to(self.trained):
            self.model.save_pretrained(directory)

    def describe(self) -> str:
        """See ``Task.describe``."""
        count = sum(parameter.numel() for parameter in self.trained.parameters())
        codes = f"{self.model.codes_per_token} codes of {self.model.vocab_size:,}"
        return f"{self.model.config.system}: {count / 1e6:.2f}M parameters, {codes} per token"

    def _losses(self, batch: Batch, state: TrainState, index: int) -> TokenizerForward:
        config, pixel_values = self.config, batch.pixel_values()
        known = self._known(batch)
        if known is None and config.distills:
            known = self._compute(pixel_values)
        with autocast(config.precision, pixel_values.device):
            with torch.set_grad_enabled(not config.semantic_only):
                output = self.model(pixel_values, known)
            predicted = None
            if config.distills:
                predicted = self.model.predict_features(output.codes, self.model.config.grid(*pixel_values.shape[-2:]))
        reconstruction = output.reconstruction.float()
        total, terms = torch.zeros((), device=pixel_values.device), {}
        if not config.semantic_only:
            total, terms = visible_loss(
                config,
                pixel_values,
                reconstruction,
                perceptual=self.perceptual,
                adversary=self.adversary,
                last_layer=self.model.decoder.head.last_layer,
                state=state,
                index=index,
            )
            for name, value in output.losses.items():
                terms[f"loss/{name}"] = value
                total = total + config.quantizer_weights[name] * value
        if predicted is not None and known is not None:
            distillation = distillation_loss(predicted.float(), known)
            total = total + config.cosine_weight * distillation["cosine"] + config.feature_weight * distillation["l1"]
            terms |= {"loss/cosine": distillation["cosine"], "loss/features": distillation["l1"]}
        terms["psnr"] = mean_psnr(reconstruction.detach(), pixel_values)
        return TokenizerForward((pixel_values, reconstruction), output.ids, output.features, {"loss": total, **terms})

    def _known(self, batch: Batch) -> Tensor | None:
        """The teacher's features of a batch, if they are cached."""
        return batch.extras[FEATURES].float() if FEATURES in batch.extras else None

    def _compute(self, pixel_values: Tensor) -> Tensor:
        compute = self.compute_features or self.model.teacher_features
        with torch.no_grad(), autocast(self.config.precision, pixel_values.device):
            return compute(pixel_values).float()


def _check(model: ViTTokenizerModel, config: ViTTrainingConfig, perceptual: PerceptualDistance | None) -> None:
    if model.encoder is None:
        raise ValueError("a model loaded with encoder=False cannot be trained")
    if not config.semantic_only:
        check_perceptual(config.perceptual_weight, perceptual)
    if config.distills and model.semantic_decoder is None:
        raise ValueError("the configuration distills, but the model has no semantic decoder: set semantic_channels")
    with torch.no_grad():
        found = model.quantizer(torch.zeros(1, 1, model.config.code_dim, device=model.device)).losses
    if not config.semantic_only and found.keys() != config.quantizer_weights.keys():
        raise ValueError(
            f"quantizer_weights must weight exactly the losses of quantizer {model.config.quantizer}, which are "
            f"{', '.join(found) or 'none'}, but are given for {', '.join(config.quantizer_weights) or 'none'}"
        )
