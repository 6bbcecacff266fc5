"""Stages 2 and 3: pixel reconstruction enablement and the enhanced decoder (paper section 3.2, eqs. 5 to 7).

Trains the pixel encoder, sub-codebooks and pixel decoder (``pixel``, ``pixel-finetune``), or only the decoder
(``decoder``). The teacher and all parts of stage 1 are frozen and in eval mode, so that semantic ids cannot change.
Loss: L1 + codebook + commitment + perceptual + adversarial.

Shapes: B images, N tokens, d_p pixel channels, K semantic codes, m pixel codes under each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semhitok.data.feed import Batch
from semhitok.distributed import broadcast_parameters
from semhitok.losses import PatchDiscriminator, l1_loss
from semhitok.nn.exact import exact_fp32
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.codebook_maintenance import CodebookMaintainer
from semhitok.training.optim import build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.adversarial import AdversarialConfig, Adversary
from semhitok.training.tasks.microbatches import TokenizerForward, accumulate
from semhitok.training.tasks.pixel_config import PixelConfig
from semhitok.training.tasks.precision import autocast
from semhitok.training.tasks.terms import mean_psnr, mean_terms
from semhitok.training.weight_average import WeightAverage
from semhitok.types import Quantized, TokenizerOutput

SEMANTIC_IDS = "semantic_ids"
PerceptualDistance = Callable[[Tensor, Tensor], Tensor]


def check_perceptual(weight: float, perceptual: PerceptualDistance | None) -> None:
    """Raise ``ValueError`` for a perceptual loss without its network."""
    if weight > 0 and perceptual is None:
        raise ValueError("perceptual_weight is above 0 but no perceptual network was given; set it to 0 or fetch one")


class PixelTask:
    """Trains the pixel branch of ``model`` in place.

    Args:
        model: a model after stage 1; semantic ids come from ``batch.extras["semantic_ids"]`` (cached) or from the model.
        config: see ``PixelConfig``.
        perceptual: distance (prediction, target) -> (B,), required if ``perceptual_weight`` > 0.
        fresh_codebook: set the sub-codebooks by k-means at ``initialise_step``; False if they are already trained.
    """

    def __init__(
        self,
        model: SemHiTokModel,
        config: PixelConfig,
        *,
        perceptual: PerceptualDistance | None = None,
        fresh_codebook: bool = False,
    ) -> None:
        check_perceptual(config.perceptual_weight, perceptual)
        if model.pixel_encoder is None:
            raise ValueError("the pixel branch cannot be trained in a model loaded with encoder=False")
        if fresh_codebook and config.initialise_step < 1:
            raise ValueError(
                f"initialise_step must be at least 1, so that k-means has vectors, got {config.initialise_step}"
            )
        self.model = model.requires_grad_(False).eval()
        parts = {"pixel_decoder": model.pixel_decoder}
        if not config.decoder_only:
            parts |= {"pixel_encoder": model.pixel_encoder, "pixel_quantizer": model.pixel_quantizer}
        self.trained = nn.ModuleDict(parts).requires_grad_(True).train()
        self.config = config
        self.perceptual = perceptual
        broadcast_parameters(self.trained)
        self.optimizer = build_adamw(self.trained, config.optimizer)
        self.adversary = _adversary(config, model.device) if config.adversarial_weight else None
        self.average = WeightAverage(self.trained, decay=config.average_decay)
        self.maintainer = CodebookMaintainer(
            model.pixel_quantizer,
            config,
            model.device,
            seed_name="pixel codebook",
            fresh_codebook=fresh_codebook,
            vocab_size=model.vocab_size,
            frozen=config.decoder_only,
        )

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``: one step of the generator side, then one of the discriminator."""
        self.maintainer.begin(state)
        forwards = accumulate(microbatches, self.parameters(), lambda batch, index: self.losses(batch, state, index))
        return self.finish(forwards, state)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained, in the order of the forward pass."""
        for name in ("pixel_encoder", "pixel_quantizer", "pixel_decoder"):
            if name in self.trained:
                yield from self.trained[name].parameters()

    def finish(self, forwards: Sequence[TokenizerForward], state: TrainState) -> dict[str, float | Tensor]:
        """Update weights, weight average, discriminator and codebooks after the backward pass; returns the metrics."""
        metrics = mean_terms([forward.terms for forward in forwards])
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        self.average.update(self.trained)
        if self.adversary is not None and self.adversary.active(state):
            pairs = [forward.pair for forward in forwards if forward.pair is not None]
            metrics |= self.adversary.step(pairs, state)
        return metrics | self.maintainer.finish([(forward.features, forward.ids) for forward in forwards], state)

    @torch.no_grad()
    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Originals as the pixel branch sees them, and their reconstructions with the current weights."""
        with autocast(self.config.precision, batch.images_BCHW.device):
            output = self.model(batch.pixel_values(), batch.extras.get(SEMANTIC_IDS))
        return self.model.pixel_view(batch.pixel_values()), output.reconstruction.float().clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Current and averaged weights, both optimizers, discriminator, and the interval's hits and reservoir."""
        state = {
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.maintainer.state_dict(),
        }
        return state if self.adversary is None else state | self.adversary.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.maintainer.load_state_dict(state)
        if self.adversary is not None:
            self.adversary.load_state_dict(state)

    def export(self, directory: Path | None) -> None:
        """Write the model with averaged weights; the current ones are restored afterwards."""
        if directory is None:
            return
        with self.average.applied_to(self.trained):
            self.model.save_pretrained(directory)

    def describe(self) -> str:
        count = sum(parameter.numel() for parameter in self.trained.parameters())
        stage = "decoder" if self.config.decoder_only else "pixel"
        return f"stage {stage}: {count / 1e6:.2f}M parameters, vocabulary {self.model.vocab_size}"

    def losses(
        self, batch: Batch, state: TrainState, index: int, semantic: Quantized | None = None
    ) -> TokenizerForward:
        """The forward pass and the loss terms of micro-batch ``index``.

        Args:
            semantic: codes and ids of a semantic branch that is trained jointly; by default those of the frozen one,
                cached or computed.
        """
        config, pixel_values = self.config, batch.pixel_values()
        semantic_ids = batch.extras.get(SEMANTIC_IDS) if semantic is None else semantic.ids
        if semantic_ids is None:
            semantic_ids = self._semantic_ids(pixel_values)
        with autocast(config.precision, pixel_values.device):
            output: TokenizerOutput = self.model(
                pixel_values, semantic_ids.long(), None if semantic is None else semantic.codes
            )
        reconstruction, target = output.reconstruction.float(), self.model.pixel_view(pixel_values)
        terms = {"loss/l1": l1_loss(reconstruction, target)}
        visible = config.l1_weight * terms["loss/l1"]
        if self.perceptual is not None and config.perceptual_weight and state.step >= config.perceptual_start:
            with autocast(config.precision, pixel_values.device):
                terms["loss/perceptual"] = self.perceptual(reconstruction, target).mean()
            visible = visible + config.perceptual_weight * terms["loss/perceptual"]
        if self.adversary is not None and self.adversary.active(state):
            last_layer = self.model.pixel_decoder.head.last_layer
            visible, found = self.adversary.add_generator_loss(visible, reconstruction, last_layer, state, index)
            terms |= found
        total = visible
        if not config.decoder_only:
            losses = output.losses
            total = (
                total + config.codebook_weight * losses["codebook"] + config.commitment_weight * losses["commitment"]
            )
            terms |= {f"loss/{name}": value for name, value in losses.items()}
        psnr = mean_psnr(reconstruction.detach(), target)
        return TokenizerForward(
            pair=(target, reconstruction),
            ids=output.ids,
            features=output.pixel_features,
            terms={"loss": total, **terms, "psnr": psnr},
        )

    def _semantic_ids(self, pixel_values: Tensor) -> Tensor:
        """Ids (B,N) of the frozen stage 1, which are those of the exported tokenizer unless the teacher runs in bf16."""
        if self.config.teacher_precision == "fp32":
            return self.model.encode_semantic(pixel_values).ids
        with autocast(self.config.teacher_precision, pixel_values.device):
            features_BND = self.model.teacher_features(pixel_values)
        with exact_fp32(pixel_values.device):
            return self.model.semantic.quantize(features_BND.float()).ids


def _adversary(config: PixelConfig, device: torch.device) -> Adversary:
    return Adversary(PatchDiscriminator(config.discriminator_channels).to(device), adversarial_config(config))


def adversarial_config(config: PixelConfig) -> AdversarialConfig:
    """The settings of the discriminator."""
    return AdversarialConfig(
        weight=config.adversarial_weight,
        start=config.adversarial_start,
        diffaug=config.diffaug,
        optimizer=config.discriminator_optimizer,
        precision=config.precision,
    )
