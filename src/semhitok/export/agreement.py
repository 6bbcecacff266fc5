"""Exported graphs beside the model they come from: equal ids, equal pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semhitok.tokenizers.protocol import Tokenizer

Run = Callable[[np.ndarray], np.ndarray]
"""A graph: pixels (B,3,S,S) fp32 to ids int64, or ids to pixels."""

PIXELS = 1e-4
"""Largest difference of a pixel in [-1,1] that an fp32 graph may have: another order of the same sums."""
EQUAL = 0.99
"""Smallest share of equal ids of an fp32 graph: only ties, which the order of sums decides, may differ."""
BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """How well the graphs of one precision agree with the model.

    Attributes:
        images: number of images.
        equal_ids: share of ids that are the model's.
        pixel_difference: largest difference of a pixel in [-1,1], when the model and the graph decode the same ids.
        mean_pixel_difference: the mean.
    """

    images: int
    equal_ids: float
    pixel_difference: float
    mean_pixel_difference: float

    def __str__(self) -> str:
        return (
            f"{100 * self.equal_ids:.2f} % of ids equal, pixels within {self.pixel_difference:.1g} (mean "
            f"{self.mean_pixel_difference:.1g}) of [-1, 1]"
        )

    def as_json(self) -> dict[str, Any]:
        """Its numbers by name."""
        return asdict(self)

    def check(self, what: str) -> None:
        """Raise ``ValueError`` if this is not the agreement of an fp32 graph."""
        if self.pixel_difference > PIXELS or self.equal_ids < EQUAL:
            raise ValueError(f"{what} does not compute what the model computes ({self}): the export was not kept")


@torch.no_grad()
def compare(model: Tokenizer, encode: Run, decode: Run, images: Tensor) -> Agreement:
    """Compare on images (B,3,S,S) in [-1,1], a few at a time."""
    equal, total, largest, differences = 0, 0, 0.0, 0.0
    for batch in images.split(BATCH):
        ids = model.encode(batch).ids
        found = encode(batch.numpy())
        equal += int((found == ids.numpy()).sum())
        total += ids.numel()
        difference = np.abs(decode(ids.numpy()) - model.decode(ids).numpy())
        largest = max(largest, float(difference.max()))
        differences += float(difference.mean()) * len(batch)
    return Agreement(len(images), equal / total, largest, differences / len(images))


def synthetic_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Random smooth images (count,3,size,size) in [-1,1], for a comparison where no pictures are given."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)
