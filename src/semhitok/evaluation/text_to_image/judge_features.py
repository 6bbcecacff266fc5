"""The judge's input: a grid of features from a frozen network.

Shapes: B images, D feature channels, G rows and columns of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from semhitok.teachers import EfficientNetLiteConfig, convert_efficientnet_lite

# Blocks of EfficientNet-Lite2 that end its grids of stride 8 (48 channels) and 16 (120 channels). Adding stride 32 made
# judges worse: composed scenes repeat the same cut-outs, which are recognised by detail rather than by kind.
FINE, COARSE = 6, 14
GRID = 12
IMAGE_SIZE = 16 * GRID  # pixels


@dataclass(frozen=True)
class GridFeatures:
    """A frozen network whose grid of features the judge reads.

    Attributes:
        protocol: network, layers and resizing; a judge only works on the features that it was fitted on.
        channels, grid: D and G.
        extract: images (B,3,H,W) in [-1,1] -> features (B,D,G,G).
    """

    protocol: str
    channels: int
    grid: int
    extract: Callable[[Tensor], Tensor]


def lite2_grid(weights: Path | str, *, device: torch.device | str = "cpu") -> GridFeatures:
    """Strides 8 and 16 of EfficientNet-Lite2 (Tan and Le, 2019; ImageNet), on images of 192 pixels.

    No tokenizer is trained with this network: the built-in teacher is Lite0. A cell of stride 16 comes with the four cells of
    stride 8 within it.

    Args:
        weights: the ``.pth`` at ``weights_path("efficientnet_lite2.pth")``, from ``semhitok data fetch weights``.
        device: where the network runs.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    config = EfficientNetLiteConfig.lite2(num_blocks=COARSE + 1)
    network = convert_efficientnet_lite(weights, config).requires_grad_(False)
    nn.Module.to(network, device)

    @torch.no_grad()
    def extract(images_BCHW: Tensor) -> Tensor:
        images_BCHW = images_BCHW.to(device, torch.float32).clamp(-1, 1)
        resized_BCHW = F.interpolate(images_BCHW, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
        # The network was trained on (x - 127) / 128 for x in [0,255].
        states = network((127.5 * resized_BCHW + 0.5) / 128, output_hidden_states=True).hidden_states
        assert states is not None
        # The first state is the stem's.
        fine = rearrange(states[FINE + 1], "b (h p w q) d -> b (d p q) h w", h=GRID, p=2, q=2)
        coarse = rearrange(states[COARSE + 1], "b (h w) d -> b d h w", h=GRID)
        return torch.cat([fine, coarse], dim=1)

    protocol = (
        f"EfficientNet-Lite2, blocks {FINE} and {COARSE}, images resampled to {IMAGE_SIZE} px (bicubic, antialiased)"
    )
    channels = 4 * config.blocks[FINE].outputs + config.blocks[COARSE].outputs
    return GridFeatures(protocol, channels, GRID, extract)
