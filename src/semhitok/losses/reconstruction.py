"""Pixel reconstruction loss (SemHiTok section 3.2, eq. 7; L1 as in VQGAN, Esser et al. 2021)."""

from __future__ import annotations

from torch import Tensor


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, taken in fp32 whatever the autocast state.

    Args:
        prediction: any shape; images are (B,3,H,W) in [-1,1], which makes the loss twice the error on [0,1].
        target: the same shape; receives no gradient.

    Raises:
        ValueError: the shapes differ (a silent broadcast would compare the wrong elements).
    """
    if prediction.shape != target.shape:
        raise ValueError(f"l1_loss compares equal shapes, but got {tuple(prediction.shape)} and {tuple(target.shape)}.")
    return (prediction.float() - target.detach().float()).abs().mean()
