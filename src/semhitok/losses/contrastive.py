"""Image-text losses over a batch: sigmoid (SigLIP, Zhai et al. 2023, eq. 1) and softmax (CLIP, Radford et al. 2021).

Shapes: B pairs, G pairs of all ranks, D embedding channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sigmoid_contrastive_loss(image_BD: Tensor, text_BD: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Binary cross-entropy over all pairs of images and texts of the batch: matching (the diagonal) or not.

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
    _check_pairs("sigmoid_contrastive_loss", image_BD, text_BD)
    with torch.autocast(image_BD.device.type, enabled=False):  # logits span 20 units: bf16 steps there are 1/16
        logits_BB = _cosines(text_BD, image_BD) * scale.float() + bias.float()
        sign_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device) - 1
        return -functional.logsigmoid(sign_BB * logits_BB).sum(dim=-1).mean()


def softmax_contrastive_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    scale: Tensor,
    *,
    all_pairs: tuple[Tensor, Tensor] | None = None,
    first: int = 0,
) -> Tensor:
    """The mean of the cross-entropies of finding each image's text and each text's image in the batch.

    Args:
        image_BD: image embeddings; l2-normalised here.
        text_BD: text embeddings of the same pairs in the same order; l2-normalised here.
        scale: scalar that multiplies the cosine, the inverse temperature; CLIP learns its logarithm, at most log 100.
        all_pairs: images and texts (G,D) of all ranks among which this rank's pairs are searched, so that a rank computes
            B x G logits and not G x G; the mean over the ranks is the loss of the whole batch. By default this rank's alone.
        first: index of this rank's first pair among them.

    Returns:
        Scalar; log B for uninformative embeddings.

    Raises:
        ValueError: the shapes differ.
    """
    _check_pairs("softmax_contrastive_loss", image_BD, text_BD)
    with torch.autocast(image_BD.device.type, enabled=False):  # logits span 200 units: bf16 steps there are 1/2
        images_GD, texts_GD = all_pairs or (image_BD, text_BD)
        of_images_BG = _cosines(image_BD, texts_GD) * scale.float()
        of_texts_BG = of_images_BG.T if all_pairs is None else _cosines(text_BD, images_GD) * scale.float()
        own_B = torch.arange(first, first + len(image_BD), device=image_BD.device)
        return 0.5 * (functional.cross_entropy(of_images_BG, own_B) + functional.cross_entropy(of_texts_BG, own_B))


def _cosines(left_BD: Tensor, right_BD: Tensor) -> Tensor:
    """(B,B) fp32: each row of ``left_BD`` against each of ``right_BD``."""
    return functional.normalize(left_BD.float(), dim=-1) @ functional.normalize(right_BD.float(), dim=-1).T


def _check_pairs(name: str, image_BD: Tensor, text_BD: Tensor) -> None:
    if image_BD.shape != text_BD.shape:
        raise ValueError(
            f"{name} needs image and text embeddings of the same shape, got images {tuple(image_BD.shape)} and texts "
            f"{tuple(text_BD.shape)}."
        )
