"""Replacement of pixel codes by a number of hits."""

from __future__ import annotations

from torch import Tensor

from semhitok.quantizers import HierarchicalQuantizer


def replace_below(
    quantizer: HierarchicalQuantizer,
    z_ND: Tensor,
    groups_N: Tensor,
    counts_Km: Tensor,
    *,
    threshold: float,
    seed: int,
    step: int,
) -> int:
    """Replaces codes with fewer hits than ``threshold``, a number in place of a share of the mean."""
    dead_Km = quantizer.dead_codes(counts_Km, threshold * quantizer.codes / int(counts_Km.sum()))
    return quantizer.replace_dead_codes(dead_Km, z_ND, groups_N, seed=seed, step=step)
