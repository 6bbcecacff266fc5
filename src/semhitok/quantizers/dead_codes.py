"""Replacement of dead codes by vectors sampled from the global batch, identically on every rank.

Shapes: N vectors, K codes, D channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def keyed_generator(seed: int, step: int = 0) -> torch.Generator:
    """A CPU generator that is a pure function of (seed, step), the same on every rank and for every device."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def random_order(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A permutation of ``count`` rows, sampled on the CPU so that devices agree; (count,) int64."""
    return torch.randperm(count, generator=generator).to(device)


@torch.no_grad()
def replace_dead(codebook_KD: Tensor, z_ND: Tensor, dead_K: Tensor, *, seed: int, step: int) -> Tensor:
    """Overwrites dead rows of the codebook, in place, by distinct random rows of ``z_ND``.

    With fewer vectors than dead codes, only the first N dead codes are replaced.

    Args:
        codebook_KD: (K,D) changed in place.
        z_ND: (N,D) the global batch in sample order.
        dead_K: (K,) bool.

    Returns:
        (R,) int64 indices of the replaced codes.
    """
    dead = dead_K.to(codebook_KD.device).nonzero().squeeze(1)[: len(z_ND)]
    drawn = random_order(len(z_ND), keyed_generator(seed, step), z_ND.device)[: len(dead)]
    codebook_KD[dead] = z_ND[drawn].to(codebook_KD.dtype)
    return dead
