"""Entropy terms that keep a large codebook in use (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, section 3.1).

Each token should choose confidently, and all codes should be chosen equally often. Both terms are minimised:
``token_entropy`` = E[H(p)], ``diversity`` = -H(E[p]), in nats, over the tokens of this rank's batch.

Shapes: N tokens, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats along the last axis; 0 log 0 counts as 0, with a gradient of 0 there."""
    return torch.special.entr(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)).sum(dim=-1)


def entropy_terms(logits_NK: Tensor) -> dict[str, Tensor]:
    """``token_entropy`` and ``diversity`` of softmax(logits), scalars in [0, log K] and [-log K, 0]."""
    probabilities_NK = logits_NK.softmax(dim=-1)
    log_probabilities_NK = logits_NK.log_softmax(dim=-1)
    token_entropy = -(probabilities_NK * log_probabilities_NK).sum(dim=-1).mean()
    return {"token_entropy": token_entropy, "diversity": -entropy(probabilities_NK.mean(dim=0))}
