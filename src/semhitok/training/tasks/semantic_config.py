"""Configuration of stage 1 (paper section 3.1, eqs. 2 to 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from semhitok.training.optim import OptimizerConfig
from semhitok.types import Precision


@dataclass(frozen=True)
class SemanticConfig:
    """Losses and optimizer of stage 1.

    Attributes:
        optimizer: AdamW and schedule.
        cosine_weight: factor of the cosine distance to the teacher's features (eq. 3 gives no factors).
        l1_weight: factor of the L1 distance to the teacher's features.
        codebook_weight: factor of the codebook loss of the vanilla and normalized quantizers; EMA has none.
        commitment_weight: factor of the commitment loss (not given in the paper; VQKD uses 1, VQ-VAE 0.25).
        initialise_step: number of steps whose vectors are collected before k-means sets the codebook; 0 uses the first batch.
        revive_every: steps between replacements of dead codes, which are sampled from the vectors of these steps.
        revive_until: fraction of the run after which codes are no longer replaced, so that the codebook can settle.
        revive_below: a code is dead if it has fewer hits in an interval than this fraction of the mean.
        reservoir_size: number of vectors kept to sample replacements from.
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
