"""Differentiable augmentation for adversarial training (DiffAugment, Zhao et al. 2020): colour, translation, cutout.

It is applied to both real and generated inputs of the discriminator, so that a small data set cannot be memorised;
gradients flow through to the generator.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semhitok.transfer import to_device


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
    count, sides = len(images_BCHW), images_BCHW.shape[2:]
    draws = [torch.rand(3, count, generator=generator, device=generator.device)] if color else []
    for wanted, limits in ((translation, _shifts), (cutout, _starts)):
        draws += [_integers(*limits(side), count, generator)[None] for side in sides] if wanted else []
    # All in one copy, as whole numbers below 2^24 are exact in fp32.
    rows = iter(to_device(torch.cat(draws), images_BCHW.device)) if draws else iter(())
    if color:
        images_BCHW = _color(images_BCHW, [next(rows)[:, None, None, None].to(images_BCHW.dtype) for _ in range(3)])
    if translation:
        images_BCHW = _translation(images_BCHW, [next(rows) for _ in sides])
    if cutout:
        images_BCHW = _cutout(images_BCHW, [next(rows) for _ in sides])
    return images_BCHW


def _shifts(side: int) -> tuple[int, int]:
    """The least and the greatest translation."""
    reach = round(side / 8)
    return -reach, reach


def _starts(side: int) -> tuple[int, int]:
    """The first and the last begin of a cut-out box of half of the side, which may extend beyond the image."""
    extent = side // 2
    return -(extent // 2), side - 1 - extent // 2


def _color(images_BCHW: Tensor, draws: Sequence[Tensor]) -> Tensor:
    brightness, saturation, contrast = draws
    images_BCHW = images_BCHW + (brightness - 0.5)
    grey_B1HW = images_BCHW.mean(dim=1, keepdim=True)
    images_BCHW = grey_B1HW + (images_BCHW - grey_B1HW) * (2 * saturation)
    mean_B111 = images_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    return mean_B111 + (images_BCHW - mean_B111) * (0.5 + contrast)


def _translation(images_BCHW: Tensor, shifts: Sequence[Tensor]) -> Tensor:
    for dim, shift_B in zip((2, 3), shifts, strict=True):
        size = images_BCHW.shape[dim]
        source_BS = torch.arange(size, device=images_BCHW.device) - shift_B.long()[:, None]
        shape = [len(images_BCHW), 1, 1, 1]
        shape[dim] = size
        index = source_BS.clamp(0, size - 1).reshape(shape).expand_as(images_BCHW)
        inside = ((source_BS >= 0) & (source_BS < size)).reshape(shape)
        images_BCHW = images_BCHW.gather(dim, index) * inside
    return images_BCHW


def _cutout(images_BCHW: Tensor, starts: Sequence[Tensor]) -> Tensor:
    covered: list[Tensor] = []
    for size, start_B in zip(images_BCHW.shape[2:], starts, strict=True):
        offset_BS = torch.arange(size, device=images_BCHW.device) - start_B.long()[:, None]
        covered.append((offset_BS >= 0) & (offset_BS < size // 2))
    rows_BH, columns_BW = covered
    hole_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    return images_BCHW * ~hole_BHW[:, None]


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` integers in [low, high], fp32."""
    return torch.randint(low, high + 1, (count,), generator=generator, device=generator.device).float()
