"""UniTok's training: reconstruction and image-text contrast on the same discrete tokens (arXiv 2502.20321).

Loss: L1 + L2 + perceptual + adversarial + codebook + commitment + contrastive. Without the contrastive loss it is a
VQVAE, without the reconstruction losses a CLIP with discrete image tokens; parts that are switched off are neither
computed nor trained.

Shapes: B images, N tokens, C codebooks of K codes, E channels of the shared image-text space, T text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from semhitok.data.feed import Batch
from semhitok.distributed import broadcast_parameters, gather_with_gradients, is_distributed, rank
from semhitok.losses import softmax_contrastive_loss
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.training.codebook_maintenance import CodebookMaintainer
from semhitok.training.optim import build_adamw, take_step
from semhitok.training.state import TrainState
from semhitok.training.tasks.adversarial import Adversary
from semhitok.training.tasks.microbatches import TokenizerForward, accumulate
from semhitok.training.tasks.pixel import PerceptualDistance, check_perceptual
from semhitok.training.tasks.precision import autocast
from semhitok.training.tasks.terms import mean_psnr, mean_terms
from semhitok.training.tasks.unitok_config import UniTokTrainingConfig
from semhitok.training.tasks.visible import visible_loss
from semhitok.training.weight_average import WeightAverage

INPUT_IDS = "input_ids"
LARGEST_LOG_SCALE = math.log(100)


class UniTokTask:
    """Trains ``model`` in place; texts come from ``batch.extras["input_ids"]`` (B,T).

    Args:
        model: the model, with a text tower if ``contrastive_weight`` > 0.
        config: see ``UniTokTrainingConfig``.


        perceptual: distance (prediction, target) -> (B,), required if ``perceptual_weight`` > 0.
        discriminator: images to logits, required if ``adversarial_weight`` > 0.
        fresh_codebook: set the codebooks at ``initialise_step``; False if they are already trained.
        processor: processor of images and texts, saved with the exported model.

    Raises:
        ValueError: a required argument is missing, or the model lacks a part that is to be trained.
    """

    def __init__(
        self,
        model: UniTokModel,
        config: UniTokTrainingConfig,
        *,
        perceptual: PerceptualDistance | None = None,
        discriminator: nn.Module | None = None,
        fresh_codebook: bool = True,
        processor: UniTokProcessor | None = None,
    ) -> None:
        _check(model, config, perceptual, discriminator)
        self.model = model.requires_grad_(True).train()
        if not config.reconstructs:
            model.decoder.requires_grad_(False).eval()
        if not config.contrastive_weight:
            _freeze_contrastive_parts(model)
        self.config, self.perceptual, self.processor = config, perceptual, processor
        self.adversary = None
        if config.adversarial_weight > 0 and discriminator is not None:
            self.adversary = Adversary(discriminator.to(model.device), config.adversarial)
        broadcast_parameters(model)
        self.optimizer = build_adamw(model, config.optimizer)
        self.average = None if config.average_decay is None else WeightAverage(model, decay=config.average_decay)
        self.maintainer = CodebookMaintainer(
            model.quantizer,
            config,
            model.device,
            seed_name="unitok codebooks",
            fresh_codebook=fresh_codebook and config.initialise_step is not None,
        )

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``: one step of the tokenizer, then one of the discriminator."""
        self.maintainer.begin(state)
        with _attention(self.model.device):
            forwards = accumulate(
                microbatches, self.model.parameters(), lambda batch, index: self._losses(batch, state, index)
            )
        metrics = mean_terms([forward.terms for forward in forwards])
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        if self.config.contrastive_weight:
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=LARGEST_LOG_SCALE)
        if self.average is not None:
            self.average.update(self.model)
        pairs = [forward.pair for forward in forwards if forward.pair is not None]
        if self.adversary is not None and self.adversary.active(state):
            metrics |= self.adversary.step(pairs, state)
        return metrics | self.maintainer.finish([(forward.features, forward.ids) for forward in forwards], state)

    @torch.no_grad()
    def preview(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Images and their reconstructions with the current weights; None if the decoder is not trained."""
        if not self.config.reconstructs:
            return None
        self.model.eval()
        try:
            with autocast(self.config.precision, batch.images_BCHW.device):
                reconstruction = self.model(batch.pixel_values()).reconstruction
        finally:
            self.model.train()
        return batch.pixel_values(), reconstruction.float().clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Current and averaged weights, both optimizers, discriminator, and the interval's hits and reservoir."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            **self.maintainer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; strict."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        self.maintainer.load_state_dict(state)

    def export(self, directory: Path | None) -> None:
        """Write the model, with averaged weights if an average is kept, and its processor."""
        if directory is None:
            return
        with nullcontext() if self.average is None else self.average.applied_to(self.model):
            self.model.save_pretrained(directory)
        if self.processor is not None:
            self.processor.save_pretrained(directory)

    def describe(self) -> str:
        """See ``Task.describe``."""
        count = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        codes = f"{self.model.codes_per_token} codes of {self.model.vocab_size}" if self.model.quantizer else "no codes"
        return f"unitok: {count / 1e6:.2f}M parameters, {codes} per token"

    def _losses(self, batch: Batch, state: TrainState, index: int) -> TokenizerForward:
        config, pixel_values = self.config, batch.pixel_values()
        with autocast(config.precision, pixel_values.device):
            output = self.model(pixel_values, reconstruct=config.reconstructs)
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=pixel_values.device)
        pair = None
        if output.reconstruction is not None:
            reconstruction = output.reconstruction.float()
            pair = (pixel_values, reconstruction)
            total, found = visible_loss(
                config,
                pixel_values,
                reconstruction,
                perceptual=self.perceptual,
                adversary=self.adversary,
                last_layer=self.model.decoder.last_layer,
                state=state,
                index=index,
            )
            terms |= found
        for name, weight in (("codebook", config.codebook_weight), ("commitment", config.commitment_weight)):
            if name in output.losses:
                terms[f"loss/{name}"] = output.losses[name]
                total = total + weight * output.losses[name]
        if config.contrastive_weight:
            contrastive, matched = self._contrast(output.image_embedding, batch)
            terms |= {"loss/contrastive": contrastive, "matched": matched}
            total = total + config.contrastive_weight * contrastive
        if pair is not None:
            terms["psnr"] = mean_psnr(pair[1].detach(), pixel_values)
        return TokenizerForward(pair, output.ids, output.features, {"loss": total, **terms})

    def _contrast(self, image_BE: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """This rank's part of the contrastive loss over the pairs of all ranks, and the fraction of its images whose own text
        is nearest."""
        with autocast(self.config.precision, image_BE.device):
            text_BE = self.model.text_embedding(batch.extras[INPUT_IDS].long())
        image_BE, text_BE, scale, first = image_BE.float(), text_BE.float(), self.model.logit_scale.exp(), 0
        all_pairs = None
        if is_distributed():
            all_pairs, first = (gather_with_gradients(image_BE), gather_with_gradients(text_BE)), rank() * len(image_BE)
        loss = softmax_contrastive_loss(image_BE, text_BE, scale, all_pairs=all_pairs, first=first)
        cosine_BG = image_BE.detach() @ (text_BE if all_pairs is None else all_pairs[1]).detach().T
        return loss, (cosine_BG.diagonal(first) >= cosine_BG.amax(dim=1)).float().mean()


def _attention(device: torch.device) -> AbstractContextManager[Any]:
    """The math kernel on CPUs: the fused kernel's backward pass is slower (by a fifth of a ``unitok_nano`` step)."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _check(
    model: UniTokModel,
    config: UniTokTrainingConfig,
    perceptual: PerceptualDistance | None,
    discriminator: nn.Module | None,
) -> None:
    if not model.config.encoder:
        raise ValueError("a model loaded with encoder=False cannot be trained")
    check_perceptual(config.perceptual_weight, perceptual)
    if config.adversarial_weight > 0 and discriminator is None:
        raise ValueError("adversarial_weight is above 0 but no discriminator was given; set it to 0 or give one")
    if config.contrastive_weight > 0 and model.text_model is None:
        raise ValueError("contrastive_weight is above 0 but the model has no text tower; set it to 0 or give one")


def _freeze_contrastive_parts(model: UniTokModel) -> None:
    """Freeze the parts that only the contrastive loss trains."""
    for part in (model.image_head, model.text_model):
        if part is not None:
            part.requires_grad_(False).eval()
    model.logit_scale.requires_grad_(False)
