"""PatchGAN discriminator (Isola et al. 2017; Esser et al. 2021) without batch statistics.

BatchNorm, the usual choice, makes a logit depend on the other images of the batch, so that results change with batch size,
gradient accumulation and number of ranks. GroupNorm uses one image only.
"""

from __future__ import annotations

from torch import Tensor, nn

GROUPS = 8


class PatchDiscriminator(nn.Module):
    """Images (B,3,H,W) in [-1,1] to a map of logits (B,1,h,w), one per patch; high means real.

    `layers` convolutions of stride 2, then two of stride 1; h = H // 2**layers - 2, w alike. With three layers the
    convolutions of a logit span 70 x 70 pixels; GroupNorm adds the image's own statistics.

    Args:
        channels: width of the first layer, a multiple of 8; doubles with each layer up to eight times.
        layers: number of strided layers. Images need a side of at least ``3 * 2**layers`` pixels (24 for three).

    Raises:
        ValueError: channels or layers are out of range; in `forward`, images are too small.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        if channels < GROUPS or channels % GROUPS:
            raise ValueError(f"PatchDiscriminator needs channels in multiples of {GROUPS}, but got {channels}.")
        if layers < 1:
            raise ValueError(f"PatchDiscriminator needs at least one layer, but got layers={layers}.")
        self.smallest_side = 3 * 2**layers
        widths = [channels * min(2**depth, 8) for depth in range(layers + 1)]
        # The first layer is not normalised, so that brightness and contrast stay visible.
        blocks: list[nn.Module] = [nn.Conv2d(3, widths[0], kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for depth in range(1, layers + 1):
            stride = 2 if depth < layers else 1
            blocks += [
                nn.Conv2d(widths[depth - 1], widths[depth], kernel_size=4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(GROUPS, widths[depth]),
                nn.LeakyReLU(0.2),
            ]
        blocks.append(nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1))
        self.blocks = nn.Sequential(*blocks)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Classify the patches of images (B,3,H,W) in [-1,1]: logits (B,1,h,w)."""
        if min(images.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f"PatchDiscriminator needs images of at least {self.smallest_side} pixels a side, but got "
                f"{images.shape[-2]} x {images.shape[-1]}; use fewer layers."
            )
        return self.blocks(images)


def _initialise(module: nn.Module) -> None:
    """Isola et al. 2017, appendix 6.2: convolutions from N(0, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
