"""Image retrieval: are the images whose features are nearest of the same category?

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class NeighbourResult:
    """Precision of the nearest neighbours.

    Attributes:
        precision: share of an image's k nearest other images that have its category, averaged over images.
        chance: the same for neighbours at random.
        neighbours: k.
        images: number of images.
    """

    precision: float
    chance: float
    neighbours: int
    images: int


def neighbour_precision(
    features_ND: Tensor, labels: Sequence[str], *, groups: Sequence[str] | None = None, neighbours: int = 5
) -> NeighbourResult:
    """Precision at k by cosine similarity of the centred features; a tie is broken by the order of the images.

    Args:
        features_ND: one vector per image.
        labels: category of each image.
        groups: what an image shows more narrowly, for instance its concept; images of its own group do not count as
            neighbours, so that the same object elsewhere is no answer. By default only the image itself is left out.
        neighbours: k.

    Raises:
        ValueError: features and labels differ in number, or an image has fewer than k candidates.
    """
    count = len(features_ND)
    if count != len(labels):
        raise ValueError(f"retrieval got {count} features for {len(labels)} labels: their numbers must agree")
    numbers = {name: index for index, name in enumerate(dict.fromkeys(labels))}
    labels_N = torch.tensor([numbers[label] for label in labels])
    own_NN = torch.eye(count, dtype=torch.bool)
    if groups is not None:
        names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
        groups_N = torch.tensor([names[group] for group in groups])
        own_NN = groups_N[:, None] == groups_N[None]
    fewest = int((~own_NN).sum(dim=1).min()) if count else 0
    if fewest < neighbours:
        raise ValueError(f"retrieval needs {neighbours} other images for each image, but one has {fewest}")
    unit_ND = F.normalize(features_ND.double() - features_ND.double().mean(dim=0), dim=-1)
    scores_NN = (unit_ND @ unit_ND.T).masked_fill(own_NN, -torch.inf)
    nearest_Nk = scores_NN.argsort(dim=1, descending=True, stable=True)[:, :neighbours]
    same_NN = labels_N[:, None] == labels_N[None]
    right_Nk = same_NN.gather(1, nearest_Nk)
    chance_N = (same_NN & ~own_NN).sum(dim=1) / (~own_NN).sum(dim=1)
    return NeighbourResult(
        precision=right_Nk.double().mean().item(),
        chance=chance_N.double().mean().item(),
        neighbours=neighbours,
        images=count,
    )
