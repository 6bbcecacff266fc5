"""Configuration of UniTok's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.adversarial import AdversarialConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class UniTokTrainingConfig:
    """Losses and optimizers of UniTok's training; the defaults, except for steps, are those of the released model.

    Attributes:
        optimizer: AdamW and schedule of everything but the discriminator.
        discriminator_optimizer: AdamW and schedule of the discriminator.
        l1_weight, l2_weight, perceptual_weight: weights of the reconstruction losses.
        codebook_weight, commitment_weight: weights of the quantizer's losses, which are means over the codebooks.
        contrastive_weight: weight of the softmax loss over the pairs of all ranks, computed per micro-batch.
        adversarial_weight: factor on top of the adaptive weight, which is at least ``adaptive_minimum``.
        adversarial_start: step at which the discriminator and its loss begin; over the next ``adversarial_warmup`` steps
            the weight rises to its value.
        consistency_weight: weight of the discriminator's balanced consistency, see ``AdversarialConfig``.
        diffaug: apply differentiable augmentation to the discriminator's input.
        initialise_step: step at which k-means sets the codebooks from the vectors collected so far; None leaves them
            random (as in the paper).
        revive_every: steps between replacements of dead codes, which are sampled from the vectors of these steps.
        revive_until: fraction of the run in which dead codes are replaced; 0 disables it (as in the paper).
        revive_below: a code is dead if it has fewer hits than this fraction of the mean.
        reservoir_size: number of vectors kept to sample replacements from.
        average_decay: decay of the exported weight average; None exports the last weights (as in the paper).
        precision: ``bf16`` autocast or ``fp32``; quantizer and projections compute in fp32 either way.
    """

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-4, weight_decay=0.02, clip_norm=10.0)
    )
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=2e-5, beta1=0.5, beta2=0.9, weight_decay=0.2, clip_norm=10.0
        )
    )
    l1_weight: float = 0.2
    l2_weight: float = 1.0
    perceptual_weight: float = 1.0
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    contrastive_weight: float = 1.0
    adversarial_weight: float = 0.4
    adaptive_minimum: float = 0.015
    adversarial_start: int = 20_000
    adversarial_warmup: int = 0
    consistency_weight: float = 4.0
    diffaug: bool = True
    initialise_step: int | None = None
    revive_every: int = 200
    revive_until: float = 0.0
    revive_below: float = 0.1
    reservoir_size: int = 2**18
    average_decay: float | None = None
    precision: Precision = "bf16"

    def __post_init__(self) -> None:
        if not (self.reconstructs or self.contrastive_weight > 0):
            raise ValueError("contrastive_weight and all reconstruction weights are 0, one of them must be above 0")
        if self.adversarial_weight > 0 and not self.draws:
            raise ValueError(
                f"adversarial_weight {self.adversarial_weight} is relative to the other reconstruction losses: "
                "l1_weight, l2_weight or perceptual_weight must be above 0"
            )
        if self.initialise_step is not None and self.initialise_step < 1:
            raise ValueError(
                f"initialise_step must be None or at least 1, so that k-means has vectors, got {self.initialise_step}"
            )

    @property
    def draws(self) -> bool:
        """Whether reconstructions are compared with the original images."""
        return max(self.l1_weight, self.l2_weight, self.perceptual_weight) > 0

    @property
    def reconstructs(self) -> bool:
        """Whether the decoder is trained."""
        return self.draws or self.adversarial_weight > 0

    @property
    def adversarial(self) -> AdversarialConfig:
        """The adversarial settings."""
        return AdversarialConfig(
            weight=self.adversarial_weight,
            start=self.adversarial_start,
            diffaug=self.diffaug,
            optimizer=self.discriminator_optimizer,
            precision=self.precision,
            warmup=self.adversarial_warmup,
            minimum_weight=self.adaptive_minimum,
            consistency_weight=self.consistency_weight,
        )
