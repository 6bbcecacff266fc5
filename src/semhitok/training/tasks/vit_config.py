"""Configuration of the training of ViT tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.adversarial import AdversarialConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class ViTTrainingConfig:
    """Losses and optimizers of a ViT tokenizer.

    Attributes:
        optimizer: AdamW and schedule of the tokenizer.
        discriminator_optimizer: AdamW and schedule of the discriminator.
        l1_weight, l2_weight, perceptual_weight: weights of the reconstruction losses.
        quantizer_weights: weight of each of the quantizer's own losses by name; exactly those that it has.
        cosine_weight, feature_weight: weights of the distillation: 1 - cosine and L1 between the teacher's features and those
            that the semantic decoder predicts.
        semantic_only: train the semantic decoder alone, on the codes of the finished tokenizer.
        adversarial_weight: factor on top of the adaptive weight (VQGAN, eq. 7); 0 disables the term.
        adversarial_start: step at which the discriminator and its loss begin.
        diffaug: apply differentiable augmentation to the discriminator's input.
        discriminator_channels: width of the discriminator's first layer.
        initialise_step: step at which k-means sets the codes from the vectors collected so far; None leaves them random.
        revive_every, revive_until, revive_below, reservoir_size: replacement of dead codes, see ``MaintenanceConfig``.
        average_decay: decay of the exported weight average.
        precision: ``bf16`` autocast or ``fp32``; quantizers compute in fp32 either way.

    Raises:
        ValueError: nothing is trained, or ``initialise_step`` is below 1.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(beta1=0.5, weight_decay=0.0)
    )
    l1_weight: float = 1.0
    l2_weight: float = 0.0
    perceptual_weight: float = 1.0
    quantizer_weights: Mapping[str, float] = field(default_factory=lambda: {"codebook": 1.0, "commitment": 0.25})
    cosine_weight: float = 0.0
    feature_weight: float = 0.0
    semantic_only: bool = False
    adversarial_weight: float = 0.5
    adversarial_start: int = 20_000
    diffaug: bool = True
    discriminator_channels: int = 64
    initialise_step: int | None = 100
    revive_every: int = 200
    revive_until: float = 0.8
    revive_below: float = 0.1
    reservoir_size: int = 2**20
    average_decay: float = 0.999
    precision: Precision = "bf16"

    def __post_init__(self) -> None:
        if max(self.l1_weight, self.l2_weight, self.perceptual_weight) <= 0 and not self.semantic_only:
            raise ValueError("l1_weight, l2_weight and perceptual_weight are all 0, one of them must be above 0")
        if self.semantic_only and not self.distills:
            raise ValueError(
                "semantic_only trains the semantic decoder, so cosine_weight or feature_weight must be above 0"
            )
        if self.initialise_step is not None and self.initialise_step < 1:
            raise ValueError(
                f"initialise_step must be None or at least 1, so that k-means has vectors, got {self.initialise_step}"
            )

    @property
    def distills(self) -> bool:
        """Whether the teacher's features are predicted."""
        return max(self.cosine_weight, self.feature_weight) > 0

    @property
    def adversarial(self) -> AdversarialConfig:
        """The adversarial settings."""
        return AdversarialConfig(
            weight=self.adversarial_weight,
            start=self.adversarial_start,
            diffaug=self.diffaug,
            optimizer=self.discriminator_optimizer,
            precision=self.precision,
        )
