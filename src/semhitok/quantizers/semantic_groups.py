"""Groups of semantic codes of one size: alike ones, or random ones as their control (see ``grouping.BySemanticGroup``).

Shapes: K semantic codes of D channels, G groups.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

GroupKind = Literal["alike", "random"]
ITERATIONS = 20


def semantic_groups(codes_KD: Tensor, groups: int, kind: GroupKind, *, seed: int) -> list[int]:
    """The group of each semantic code, K / G codes in every group.

    ``alike`` is k-means with equal sizes: codes are assigned at the least total squared distance to the centres. ``random``
    is a random permutation of as many labels.

    Args:
        codes_KD: the semantic codebook.
        groups: G, a divisor of K.
        kind: what the codes of a group have in common.
        seed: of the first centres, or of the permutation.

    Raises:
        ValueError: the groups cannot have one size.
    """
    codes = len(codes_KD)
    if groups < 1 or codes % groups:
        raise ValueError(f"{codes} semantic codes cannot be divided into {groups} groups of one size")
    order_K = torch.randperm(codes, generator=torch.Generator().manual_seed(seed))
    labels_K = torch.arange(groups).repeat_interleave(codes // groups)
    if kind == "random":
        return labels_K[order_K].tolist()
    points_KD = codes_KD.detach().double().cpu()
    centres_GD, found_K = points_KD[order_K[:groups]], None
    for _ in range(ITERATIONS):
        squared_KG = torch.cdist(points_KD, centres_GD).square().numpy()
        places = linear_sum_assignment(np.repeat(squared_KG, codes // groups, axis=1))[1]
        now_K = labels_K[torch.from_numpy(places)]
        if found_K is not None and torch.equal(now_K, found_K):
            break
        found_K = now_K
        centres_GD = torch.stack([points_KD[now_K == group].mean(dim=0) for group in range(groups)])
    assert found_K is not None
    return found_K.tolist()
