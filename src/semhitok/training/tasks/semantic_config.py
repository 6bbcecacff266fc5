"""What stage 1 optimises (paper section 3.1, eqs. 2 to 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class SemanticConfig:
    """What stage 1 optimises.

    Attributes:
        optimizer: AdamW and schedule.
        cosine_weight: factor of 1 - cosine to the teacher's features (eq. 3 gives no factors).
        l1_weight: factor of the L1 distance to them.
        codebook_weight: factor of the codebook loss of the vanilla and normalized quantizers; EMA has none.
        commitment_weight: factor of the pull of features to their codes (not given; VQKD uses 1, VQ-VAE 0.25).
        initialise_step: steps whose vectors are collected before k-means sets the codebook; 0 takes the first batch.
        revive_every: steps between revivals of dead codes; the vectors of those steps are the pool they draw from.
        revive_until: share of the run after which no code is revived any more, so that the codebook settles.
        revive_below: a code is dead when an interval chose it less often than this share of the mean.
        reservoir_size: vectors kept to draw from.
        precision: ``bf16`` autocast or ``fp32``. Codebooks and distances are fp32 in both.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cosine_weight: float = 1.0
    l1_weight: float = 1.0
    codebook_weight: float = 1.0
    commitment_weight: float = 1.0
    initialise_step: int = 0
    revive_every: int = 100
    revive_until: float = 0.8
    revive_below: float = 0.03
    reservoir_size: int = 2**18
    precision: Precision = "bf16"
