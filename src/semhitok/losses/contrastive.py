"""Sigmoid image-text loss (SigLIP, Zhai et al. 2023, eq. 1).

Shapes: B pairs, D embedding channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sigmoid_contrastive_loss(image_BD: Tensor, text_BD: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every image against every text of the batch, each pair a binary decision: matching (the diagonal) or not.

    Args:
        image_BD: image embeddings; l2-normalised here.
        text_BD: text embeddings of the same pairs in the same order; l2-normalised here.
        scale: scalar that multiplies the cosine; SigLIP learns its logarithm, starting at log 10.
        bias: scalar added to the logits; SigLIP starts at -10, since most pairs do not match.

    Returns:
        Scalar: negative log-likelihood summed over the texts' B decisions, averaged over B.

    Raises:
        ValueError: the shapes differ.
    """
    if image_BD.shape != text_BD.shape:
        raise ValueError(
            f"sigmoid_contrastive_loss takes as many texts as images and one width, but got images "
            f"{tuple(image_BD.shape)} and texts {tuple(text_BD.shape)}."
        )
    with torch.autocast(image_BD.device.type, enabled=False):  # logits span 20 units: bf16 steps there are 1/16
        cosine_BB = functional.normalize(text_BD.float(), dim=-1) @ functional.normalize(image_BD.float(), dim=-1).T
        logits_BB = cosine_BB * scale.float() + bias.float()
        sign_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device) - 1
        return -functional.logsigmoid(sign_BB * logits_BB).sum(dim=-1).mean()
