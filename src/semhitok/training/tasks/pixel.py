"""Stages 2 and 3: pixel reconstruction enablement and the enhanced decoder (paper section 3.2, eqs. 5 to 7).

Trained: pixel encoder, sub-codebooks and pixel decoder (``pixel``, ``pixel-finetune``), or the decoder alone
(``decoder``). The teacher and everything of stage 1 is frozen and in eval mode, so that semantic ids cannot change.
Loss: L1 + codebook + commitment + perceptual + adversarial.

Shapes: B images, N tokens, d_p pixel channels, K semantic codes, m pixel codes under each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from semhitok.data.feed import Batch
from semhitok.losses import (
    PatchDiscriminator,
    adaptive_weight,
    augment,
    cut_at,
    discriminator_hinge_loss,
    generator_hinge_loss,
    l1_loss,
)
from semhitok.quantizers import CodeUsage
from semhitok.quantizers.gather import is_distributed
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.optim import OptimizerConfig, build_adamw, take_step
from semhitok.training.parallel import broadcast_parameters, rank
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.tasks.precision import Precision, autocast
from semhitok.training.tasks.reservoir import Reservoir
from semhitok.training.weight_average import WeightAverage
from semhitok.types import TokenizerOutput

SEMANTIC_IDS = "semantic_ids"
PerceptualDistance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PixelConfig:
    """What stages 2 and 3 optimise. The paper names the terms (eq. 7), not their weights: the values are ours.

    Attributes:
        optimizer: of the generator side, AdamW and schedule.
        discriminator_optimizer: of the discriminator.
        decoder_only: stage 3; encoder and sub-codebooks stay as they are.
        l1_weight, codebook_weight, commitment_weight, perceptual_weight: factors of the terms.
        adversarial_weight: factor on top of the adaptive weight (VQGAN, eq. 7).
        perceptual_start, adversarial_start: steps before these terms; the discriminator starts with the latter.
            A weight of 0 switches a term off.
        diffaug: differentiable augmentation of what the discriminator sees.
        discriminator_channels: width of its first layer.
        initialise_step: sub-codebooks are set by k-means per semantic code from the vectors collected up to this step.
        revive_every, revive_until, revive_below: as in stage 1; a pixel code is dead below that share of the mean
            hits of all pixel codes, if its semantic code is frequent enough to tell.
        reservoir_size: patches kept to draw from.
        average_decay: of the weight average that is exported.
        precision: ``bf16`` autocast or ``fp32``.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(beta1=0.5, weight_decay=0.0)
    )
    decoder_only: bool = False
    l1_weight: float = 1.0
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    perceptual_weight: float = 1.0
    perceptual_start: int = 0
    adversarial_weight: float = 0.5
    adversarial_start: int = 20_000
    diffaug: bool = True
    discriminator_channels: int = 64
    initialise_step: int = 100
    revive_every: int = 200
    revive_until: float = 0.8
    revive_below: float = 0.1
    reservoir_size: int = 2**20
    average_decay: float = 0.999
    precision: Precision = "bf16"


class PixelTask:
    """Trains the pixel branch of ``model`` in place.

    Args:
        model: stage 1 done; semantic ids come from ``batch.extras["semantic_ids"]`` (cached) or from the model.
        config: see ``PixelConfig``.
        perceptual: distance (prediction, target) -> (B,), needed when ``perceptual_weight`` > 0.
        fresh_codebook: set the sub-codebooks by k-means at ``initialise_step``; False when they come trained.
    """

    def __init__(
        self,
        model: SemHiTokModel,
        config: PixelConfig,
        *,
        perceptual: PerceptualDistance | None = None,
        fresh_codebook: bool = False,
    ) -> None:
        if config.perceptual_weight > 0 and perceptual is None:
            raise ValueError(
                "perceptual_weight is above 0 but no perceptual network was given; set it to 0 or fetch one"
            )
        if model.pixel_encoder is None:
            raise ValueError("the pixel branch cannot be trained in a model loaded with encoder=False")
        if fresh_codebook and config.initialise_step < 1:
            raise ValueError(
                f"initialise_step must be at least 1, to have vectors for k-means, got {config.initialise_step}"
            )
        self.model = model.requires_grad_(False).eval()
        parts = {"pixel_decoder": model.pixel_decoder}
        if not config.decoder_only:
            parts |= {"pixel_encoder": model.pixel_encoder, "pixel_quantizer": model.pixel_quantizer}
        self.trained = nn.ModuleDict(parts).requires_grad_(True).train()
        self.config = config
        self.perceptual = perceptual
        self.fresh_codebook = fresh_codebook and not config.decoder_only
        device = model.device
        self.discriminator = (
            PatchDiscriminator(config.discriminator_channels).to(device) if config.adversarial_weight else None
        )
        broadcast_parameters(self.trained)
        self.optimizer = build_adamw(self.trained, config.optimizer)
        if self.discriminator is not None:
            broadcast_parameters(self.discriminator)
            self.discriminator_optimizer = build_adamw(self.discriminator, config.discriminator_optimizer)
        self.average = WeightAverage(self.trained, decay=config.average_decay)
        self.usage = CodeUsage(model.vocab_size)
        self.reservoir = Reservoir(config.reservoir_size, model.device)

    def step(self, microbatches: Sequence[Batch], state: TrainState) -> dict[str, float | Tensor]:
        """See ``Task.step``: one step of the generator side, then one of the discriminator."""
        # A run cut to a time limit may be shorter than the recipe foresaw: a quarter of it at most is waited for.
        due = state.step >= min(self.config.initialise_step, state.total_steps // 4)
        if self.fresh_codebook and due and len(self.reservoir):
            self.fresh_codebook = False
            vectors_ND, semantic_ids_N = self.reservoir.local()
            seed = derive_seed(state.seed, "pixel codebook")
            self.model.pixel_quantizer.initialise(vectors_ND, semantic_ids_N, seed=seed)
        share = 1 / len(microbatches)
        metrics: dict[str, float | Tensor] = {}
        pairs, outputs = [], []
        for index, batch in enumerate(microbatches):
            target, output, terms = self._generator_losses(batch, state, index)
            (terms["loss"] * share).backward()
            pairs.append((target, output.reconstruction.detach().float()))
            outputs.append(output)
            self.usage.update(output.ids)
            for name, value in terms.items():
                metrics[name] = metrics.get(name, 0.0) + value.detach() * share
        metrics |= take_step(self.optimizer, self.config.optimizer, state.step, state.total_steps)
        self.average.update(self.trained)
        if self._adversarial(state):
            metrics |= self._discriminator_step(pairs, state)
        if self._revives(state):
            vectors_ND = torch.cat([output.pixel_features.detach().float().flatten(0, 1) for output in outputs])
            semantic_ids_N = torch.cat(
                [self.model.pixel_quantizer.split_ids(output.ids)[0].flatten() for output in outputs]
            )
            self.reservoir.add(vectors_ND, semantic_ids_N)
        return metrics | self._end_interval(state)

    @torch.no_grad()
    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Originals as the pixel branch sees them, and their reconstruction by the weights in training."""
        with autocast(self.config.precision, batch.images_BCHW.device):
            output = self.model(batch.pixel_values(), batch.extras.get(SEMANTIC_IDS))
        return self.model.pixel_view(batch.pixel_values()), output.reconstruction.float().clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Weights in training and averaged, both optimizers, discriminator, usage and pool of the interval."""
        state = {
            "fresh_codebook": self.fresh_codebook,
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "usage": self.usage.state_dict(),
            "reservoir": self.reservoir.state_dict(),
        }
        if self.discriminator is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; strict."""
        self.fresh_codebook = state["fresh_codebook"]
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.usage.load_state_dict(state["usage"])
        self.reservoir.load_state_dict(state["reservoir"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state["discriminator"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])

    def export(self, directory: Path) -> None:
        """Write the model with averaged weights; the ones in training are put back."""
        current = {name: tensor.clone() for name, tensor in self.trained.state_dict().items()}
        self.trained.load_state_dict(self.average.module.state_dict())
        try:
            self.model.save_pretrained(directory)
        finally:
            self.trained.load_state_dict(current)

    def describe(self) -> str:
        count = sum(parameter.numel() for parameter in self.trained.parameters())
        stage = "decoder" if self.config.decoder_only else "pixel"
        return f"stage {stage}: {count / 1e6:.2f}M parameters, vocabulary {self.model.vocab_size}"

    def _generator_losses(
        self, batch: Batch, state: TrainState, index: int
    ) -> tuple[Tensor, TokenizerOutput, dict[str, Tensor]]:
        """Target images, the model's output, and the loss terms of micro-batch ``index``."""
        config, pixel_values = self.config, batch.pixel_values()
        semantic_ids = batch.extras.get(SEMANTIC_IDS)
        if semantic_ids is None:  # outside autocast: the ids that the tokenizer will give later
            semantic_ids = self.model.encode_semantic(pixel_values).ids
        with autocast(config.precision, pixel_values.device):
            output = self.model(pixel_values, semantic_ids.long())
        reconstruction, target = output.reconstruction.float(), self.model.pixel_view(pixel_values)
        terms = {"loss/l1": l1_loss(reconstruction, target)}
        visible = config.l1_weight * terms["loss/l1"]
        if self.perceptual is not None and config.perceptual_weight and state.step >= config.perceptual_start:
            with autocast(config.precision, pixel_values.device):
                terms["loss/perceptual"] = self.perceptual(reconstruction, target).mean()
            visible = visible + config.perceptual_weight * terms["loss/perceptual"]
        if self._adversarial(state):
            assert self.discriminator is not None
            visible = cut_at(reconstruction, visible)
            self.discriminator.requires_grad_(False)
            with autocast(config.precision, pixel_values.device):
                logits = self.discriminator(self._augmented(reconstruction, state, f"generator {index}"))
            terms["loss/generator"] = generator_hinge_loss(logits)
            generator = cut_at(reconstruction, terms["loss/generator"])
            weight = adaptive_weight(
                visible,
                generator,
                self.model.pixel_decoder.head.last_layer,
                all_reduce=dist.all_reduce if is_distributed() else None,
            )
            terms["adaptive_weight"] = weight
            visible = visible + config.adversarial_weight * weight * generator
        total = visible
        if not config.decoder_only:
            losses = output.losses
            total = (
                total + config.codebook_weight * losses["codebook"] + config.commitment_weight * losses["commitment"]
            )
            terms |= {f"loss/{name}": value for name, value in losses.items()}
        psnr = -10 * torch.log10((reconstruction.detach().clamp(-1, 1) - target).square().mean(dim=(1, 2, 3)) / 4)
        return target, output, {"loss": total, **terms, "psnr": psnr.mean()}

    def _adversarial(self, state: TrainState) -> bool:
        return self.config.adversarial_weight > 0 and state.step >= self.config.adversarial_start

    def _augmented(self, images: Tensor, state: TrainState, purpose: str) -> Tensor:
        return (
            augment(images, generator=state.generator(f"{purpose}, rank {rank()}")) if self.config.diffaug else images
        )

    def _discriminator_step(
        self, pairs: Sequence[tuple[Tensor, Tensor]], state: TrainState
    ) -> dict[str, float | Tensor]:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        total = torch.zeros((), device=pairs[0][0].device)
        for index, (target, reconstruction) in enumerate(pairs):
            seen = torch.cat(
                [self._augmented(images, state, f"discriminator {index}") for images in (target, reconstruction)]
            )
            with autocast(self.config.precision, target.device):
                real, generated = self.discriminator(seen).chunk(2)
            loss = discriminator_hinge_loss(real, generated) / len(pairs)
            loss.backward()
            total += loss.detach()
        step = state.step - self.config.adversarial_start
        steps = state.total_steps - self.config.adversarial_start
        taken = take_step(self.discriminator_optimizer, self.config.discriminator_optimizer, step, steps)
        return {"loss/discriminator": total, "discriminator_gradient_norm": taken["gradient_norm"]}

    def _revives(self, state: TrainState) -> bool:
        if self.config.decoder_only:
            return False
        return self.fresh_codebook or state.step < self.config.revive_until * state.total_steps

    def _end_interval(self, state: TrainState) -> dict[str, float]:
        """Every ``revive_every`` steps: report the usage, revive dead pixel codes, begin to count anew."""
        if (state.step + 1) % self.config.revive_every:
            return {}
        usage = self.usage.all_reduce()
        metrics = {"usage": usage.usage, "perplexity": usage.perplexity}
        if self._revives(state) and not self.fresh_codebook and len(self.reservoir):
            counts_Km = usage.counts.unflatten(0, (self.model.config.semantic_codebook_size, -1))
            vectors_ND, semantic_ids_N = self.reservoir.local()
            threshold = self.config.revive_below * float(counts_Km.double().mean())
            revived = self.model.pixel_quantizer.revive(
                vectors_ND, semantic_ids_N, counts_Km, threshold=threshold, seed=state.seed, step=state.step
            )
            metrics["revived"] = float(revived)
        self.usage = CodeUsage(usage.size)
        if not self.fresh_codebook:  # what k-means is still to see stays
            self.reservoir.clear()
        return metrics
