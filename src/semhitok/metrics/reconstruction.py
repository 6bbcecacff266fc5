"""How close a reconstruction is to its original: PSNR, SSIM and a perceptual distance, one image at a time.

Every figure is computed per image and averaged over images. Images in [-1,1] are clamped and mapped to [0,1] first, so the
data range is 1.0 for both PSNR and SSIM (a data range of 2.0 on such images, which some published tables use, inflates
SSIM).

Shapes: B images, C = 3 channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""(reconstructions, originals), both (B,3,H,W) in [-1,1] -> (B,) distances."""

MAXIMUM_PSNR = 100.0
"""PSNR in dB assigned to an exact copy in place of infinity; keeps means and JSON finite."""


def unit_range(images_BCHW: Tensor) -> Tensor:
    """Images in [-1,1] -> fp32 images in [0,1], clamped."""
    return ((images_BCHW.float() + 1) / 2).clamp(0, 1)


def psnr_per_image(originals_BCHW: Tensor, reconstructions_BCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), of images in [-1,1]; data range 1.0 after mapping to [0,1]."""
    difference = unit_range(originals_BCHW) - unit_range(reconstructions_BCHW)
    error_B = difference.square().flatten(1).mean(dim=1)
    return (-10 * torch.log10(error_B)).clamp(max=MAXIMUM_PSNR)


def ssim_per_image(originals_BCHW: Tensor, reconstructions_BCHW: Tensor) -> Tensor:
    """Structural similarity, (B,), of images in [-1,1]; data range 1.0.

    As in torchmetrics: Gaussian window of 11 x 11 pixels, sigma 1.5, images mirrored at their border, so that every pixel
    counts. (Scikit-image leaves out a border of 5 pixels, which changes the figure by about 0.001.)
    """
    similarity = structural_similarity_index_measure(
        unit_range(reconstructions_BCHW), unit_range(originals_BCHW), data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    # Some torchmetrics releases return a scalar for a single image.
    return similarity.reshape(-1)


@dataclass(frozen=True)
class ReconstructionScores:
    """Means over ``images`` images at ``height`` x ``width`` pixels: PSNR in dB, SSIM, perceptual distance if requested."""

    images: int
    height: int
    width: int
    psnr: float
    ssim: float
    perceptual: float | None


class ReconstructionMetrics:
    """Running means of the reconstruction figures over batches of images of one size.

    Args:
        perceptual: a distance called with (reconstructions, originals) in [-1,1], returning (B,); None to leave it out.
    """

    def __init__(self, *, perceptual: PerceptualDistance | None = None) -> None:
        self.perceptual = perceptual
        self.images = 0
        self._size = (0, 0)
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, originals_BCHW: Tensor, reconstructions_BCHW: Tensor) -> Tensor:
        """Add a batch of images in [-1,1]; returns its PSNR, (B,) in dB.

        Raises:
            ValueError: the two batches differ in shape, or in size from the batches before.
        """
        size = (originals_BCHW.shape[-2], originals_BCHW.shape[-1])
        if originals_BCHW.shape != reconstructions_BCHW.shape or (self.images and size != self._size):
            raise ValueError(
                f"reconstructions of shape {tuple(reconstructions_BCHW.shape)} cannot be compared with originals of "
                f"shape {tuple(originals_BCHW.shape)}: all must have one size, so resample first."
            )
        self._size = size
        psnr_B = psnr_per_image(originals_BCHW, reconstructions_BCHW)
        ssim_B = ssim_per_image(originals_BCHW, reconstructions_BCHW)
        distance_B = torch.zeros_like(psnr_B)
        if self.perceptual is not None:
            # Clamped as for the other figures: overshoot beyond [-1,1] is never visible.
            distance_B = self.perceptual(reconstructions_BCHW.float().clamp(-1, 1), originals_BCHW.float())
        self._sums += torch.stack([psnr_B, ssim_B, distance_B.to(psnr_B)]).double().sum(dim=1).cpu()
        self.images += len(psnr_B)
        return psnr_B

    def result(self) -> ReconstructionScores:
        """The means so far.

        Raises:
            ValueError: no image has been added.
        """
        if self.images == 0:
            raise ValueError("there are no reconstruction figures without images: add at least one batch first.")
        psnr, ssim, distance = (self._sums / self.images).tolist()
        perceptual = None if self.perceptual is None else distance
        return ReconstructionScores(self.images, *self._size, psnr=psnr, ssim=ssim, perceptual=perceptual)
