"""What UniTok's training optimises, as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.adversarial import AdversarialConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class UniTokTrainingConfig:
    """What is optimised; the defaults are the released model's, steps aside.

    Attributes:
        optimizer: of everything but the discriminator.
        discriminator_optimizer: of the discriminator.
        l1_weight, l2_weight, perceptual_weight: of the reconstruction.
        codebook_weight, commitment_weight: of the quantizer's losses, means over the codebooks.
        contrastive_weight: of the softmax loss over the pairs of all ranks; each micro-batch is contrasted on its own.
        adversarial_weight: factor on top of the adaptive weight, which is at least ``adaptive_minimum``.
        adversarial_start: steps before the discriminator and its loss begin; ``adversarial_warmup``: steps in which the
            weight then rises.
        consistency_weight: balanced consistency of the discriminator, see ``AdversarialConfig``.
        diffaug: differentiable augmentation of what the discriminator sees.
        initialise_step: the codebooks are set by k-means from the vectors collected up to this step; None leaves them
            random (the paper).
        revive_every: steps in which code usage is counted; dead codes are then replaced, by vectors of these steps.
        revive_until: share of the run in which dead codes are replaced; 0 never does (the paper).
        revive_below: a code is dead below this share of the mean hits.
        reservoir_size: vectors kept to draw from.
        average_decay: of the weight average that is exported; None exports the last weights (the paper).
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
            raise ValueError(
                "contrastive_weight and every weight of the reconstruction are 0, one of them must be above 0"
            )
        if self.adversarial_weight > 0 and not self.draws:
            raise ValueError(
                f"adversarial_weight {self.adversarial_weight} is weighed against the other reconstruction losses: "
                "l1_weight, l2_weight or perceptual_weight must be above 0"
            )
        if self.initialise_step is not None and self.initialise_step < 1:
            raise ValueError(
                f"initialise_step must be at least 1, to have vectors for k-means, or None, got {self.initialise_step}"
            )

    @property
    def draws(self) -> bool:
        """Whether reconstructions are compared with their images."""
        return max(self.l1_weight, self.l2_weight, self.perceptual_weight) > 0

    @property
    def reconstructs(self) -> bool:
        """Whether the decoder is trained."""
        return self.draws or self.adversarial_weight > 0

    @property
    def adversarial(self) -> AdversarialConfig:
        """The adversarial part."""
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
