"""Semantic distillation loss (SemHiTok section 3.1, eq. 3): cosine plus L1 to the frozen teacher's features.

Shapes: B images, N patches, D feature channels.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from semhitok.losses.reconstruction import l1_loss


def distillation_loss(prediction_BND: Tensor, target_BND: Tensor) -> dict[str, Tensor]:
    """Distances between the semantic decoder's features and the teacher's, in direction and in value.

    Args:
        prediction_BND: the semantic decoder's output.
        target_BND: the teacher's features; receive no gradient.

    Returns:
        ``cosine``: mean over patches of 1 - cosine similarity, in [0,2]. ``l1``: mean absolute difference. Both are
        unweighted fp32 scalars.

    Raises:
        ValueError: the shapes differ.
    """
    l1 = l1_loss(prediction_BND, target_BND)
    similarity_BN = functional.cosine_similarity(prediction_BND.float(), target_BND.detach().float(), dim=-1)
    return {"cosine": (1 - similarity_BN).mean(), "l1": l1}
