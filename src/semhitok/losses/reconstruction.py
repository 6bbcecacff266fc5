"""Pixel reconstruction losses: L1 (SemHiTok section 3.2, eq. 7, as VQGAN, Esser et al. 2021) and L2 (UniTok adds it)."""

from __future__ import annotations

from torch import Tensor


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, computed in fp32 regardless of autocast.

    Args:
        prediction: any shape; images are (B,3,H,W) in [-1,1], which makes the loss twice the error on [0,1].
        target: the same shape; receives no gradient.

    Raises:
        ValueError: the shapes differ (broadcasting would silently compare the wrong elements).
    """
    return _difference("l1_loss", prediction, target).abs().mean()


def l2_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; arguments and errors as for ``l1_loss``. For images it is four times that on [0,1]."""
    return _difference("l2_loss", prediction, target).square().mean()


def _difference(name: str, prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError(f"{name} compares equal shapes, but got {tuple(prediction.shape)} and {tuple(target.shape)}.")
    return prediction.float() - target.detach().float()
