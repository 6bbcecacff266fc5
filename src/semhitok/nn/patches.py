"""Images to patch tokens and back.

Shapes: B batch, H x W pixels, N = (H/p) * (W/p) tokens in row order, D width, R refinement channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Patchify(nn.Module):
    """Linear embedding of p x p patches: (B,3,H,W) in [-1,1] -> (B,N,D). H and W must be multiples of p.

    Images may be fp32 while the weights are bf16.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(3 * patch_size**2, width)

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        p = self.patch_size
        patches_BND = rearrange(pixel_values_BCHW, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
        return self.project(patches_BND.to(self.project.weight.dtype))


class PixelHead(nn.Module):
    """Tokens to pixels: (B,N,D) -> (B,3,H,W), unbounded (the target range is [-1,1]).

    With ``refine_channels`` = 0 the head is the plain linear projection of a ViT decoder. Otherwise a patch is first
    projected to R channels, and two 3x3 convolutions turn those into colours: they reach across patch borders, which
    removes most of the grid pattern of a linear head. The paper does not describe its head; this is our choice.
    """

    def __init__(self, patch_size: int, width: int, refine_channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.channels = refine_channels or 3
        self.project = nn.Linear(width, self.channels * patch_size**2)
        self.refine = (
            nn.Sequential(
                nn.Conv2d(refine_channels, refine_channels, 3, padding=1),
                nn.GELU(approximate="tanh"),
                nn.Conv2d(refine_channels, 3, 3, padding=1),
            )
            if refine_channels
            else nn.Identity()
        )

    def forward(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        p, (rows, columns) = self.patch_size, grid
        pattern = "b (h w) (c p q) -> b c (h p) (w q)"
        pixels = rearrange(self.project(x_BND), pattern, h=rows, w=columns, p=p, q=p, c=self.channels)
        return self.refine(pixels)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients determine the adaptive adversarial weight (VQGAN, eq. 7)."""
        last = self.refine[-1] if isinstance(self.refine, nn.Sequential) else self.project
        assert isinstance(last.weight, nn.Parameter)
        return last.weight


def resize(images_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bicubic resampling of float images; the identity when the size already fits."""
    if images_BCHW.shape[-2:] == (height, width):
        return images_BCHW
    # The CPU kernel does not support bf16, and resampling should not lose precision.
    resized = F.interpolate(images_BCHW.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.to(images_BCHW.dtype)
