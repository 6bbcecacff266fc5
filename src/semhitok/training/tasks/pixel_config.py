"""Configuration of stages 2 and 3 (paper section 3.2, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class PixelConfig:
    """Losses and optimizers of stages 2 and 3. The paper gives the terms (eq. 7) but not their weights, which are ours.

    Attributes:
        optimizer: AdamW and schedule of the tokenizer.
        discriminator_optimizer: AdamW and schedule of the discriminator.
        decoder_only: train only the decoder (stage 3); encoder and sub-codebooks stay as they are.
        l1_weight, codebook_weight, commitment_weight, perceptual_weight: factors of the terms; 0 disables a term.
        adversarial_weight: factor on top of the adaptive weight (VQGAN, eq. 7); 0 disables the term.
        perceptual_start, adversarial_start: steps at which these terms begin; the discriminator starts with the latter.
        diffaug: apply differentiable augmentation to the discriminator's input.
        discriminator_channels: width of the discriminator's first layer.
        initialise_step: step at which k-means sets the sub-codebooks, per semantic code, from the vectors collected so far.
        revive_every, revive_until, revive_below: as in stage 1; a pixel code is dead below that fraction of the mean
            hits of all pixel codes, if its semantic code is frequent enough to tell.
        reservoir_size: number of vectors kept to sample replacements from.
        average_decay: decay of the exported weight average.
        precision: ``bf16`` autocast or ``fp32``.
        teacher_precision: of the frozen teacher in steps whose semantic ids were not computed before; ``fp32`` gives the ids of
            the exported tokenizer, ``bf16`` autocast is faster on GPUs and changes some ids (docs/experiments.md).
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
    teacher_precision: Precision = "fp32"
