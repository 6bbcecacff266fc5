"""Differentiable augmentation for adversarial training (DiffAugment, Zhao et al. 2020): colour, translation, cutout.

It is applied to both real and generated inputs of the discriminator, so that a small data set cannot be memorised;
gradients flow through to the generator.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def augment(
    images_BCHW: Tensor,
    *,
    generator: torch.Generator,
    color: bool = True,
    translation: bool = True,
    cutout: bool = True,
) -> Tensor:
    """Augment every image with its own random parameters; differentiable in `images_BCHW`.

    Args:
        images_BCHW: images in [-1,1]; the colour part may leave that range.
        generator: source of all randomness, used on its own device: a CPU generator gives the same augmentation
            wherever the images are.
        color: brightness + U(-0.5, 0.5), saturation x U(0, 2), contrast x U(0.5, 1.5).
        translation: shift by up to 1/8 of each side, in whole pixels, padded with 0 (mid grey).
        cutout: set a box of half of each side, centred anywhere, to 0.
    """
    if color:
        images_BCHW = _color(images_BCHW, generator)
    if translation:
        images_BCHW = _translation(images_BCHW, generator)
    if cutout:
        images_BCHW = _cutout(images_BCHW, generator)
    return images_BCHW


def _color(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    draws = torch.rand(3, len(images_BCHW), 1, 1, 1, generator=generator, device=generator.device)
    brightness, saturation, contrast = draws.to(images_BCHW)
    images_BCHW = images_BCHW + (brightness - 0.5)
    grey_B1HW = images_BCHW.mean(dim=1, keepdim=True)
    images_BCHW = grey_B1HW + (images_BCHW - grey_B1HW) * (2 * saturation)
    mean_B111 = images_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    return mean_B111 + (images_BCHW - mean_B111) * (0.5 + contrast)


def _translation(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    for dim in (2, 3):
        size = images_BCHW.shape[dim]
        reach = round(size / 8)
        shift_B = _integers(-reach, reach, len(images_BCHW), images_BCHW.device, generator)
        source_BS = torch.arange(size, device=images_BCHW.device) - shift_B[:, None]
        shape = [len(images_BCHW), 1, 1, 1]
        shape[dim] = size
        index = source_BS.clamp(0, size - 1).reshape(shape).expand_as(images_BCHW)
        inside = ((source_BS >= 0) & (source_BS < size)).reshape(shape)
        images_BCHW = images_BCHW.gather(dim, index) * inside
    return images_BCHW


def _cutout(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images_BCHW.shape
    covered: list[Tensor] = []
    for size in (height, width):
        extent = size // 2
        start_B = _integers(-(extent // 2), size - 1 - extent // 2, batch, images_BCHW.device, generator)
        offset_BS = torch.arange(size, device=images_BCHW.device) - start_B[:, None]
        covered.append((offset_BS >= 0) & (offset_BS < extent))
    rows_BH, columns_BW = covered
    hole_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    return images_BCHW * ~hole_BHW[:, None]


def _integers(low: int, high: int, count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """`count` integers in [low, high]."""
    return torch.randint(low, high + 1, (count,), generator=generator, device=generator.device).to(device)
