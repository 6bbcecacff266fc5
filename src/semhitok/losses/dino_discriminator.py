"""Discriminator on the features of a frozen DINOv2 (StyleGAN-T, Sauer et al. 2023, section 3.2; UniTok).

Each tap has a trained head: Conv1d over the sequence of patches, with spectral normalisation (Miyato et al. 2018). As in
UniTok: kernel 9 with circular padding, GroupNorm, and the class token added to every patch.

Shapes: B images, N patches, D channels of the network, T taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from semhitok.storage.weights import load_weights

if TYPE_CHECKING:  # imported only where a network is built, because recipes use TAPS without transformers
    from transformers import Dinov2Config, Dinov2Model

TAPS = (0, 2, 5, 8, 11)
GROUPS = 32


def dinov2_small_config() -> Dinov2Config:
    """The published DINOv2-S: 12 layers, width 384, patch 14."""
    from transformers import Dinov2Config

    return Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)


class DinoDiscriminator(nn.Module):
    """Images (B,3,H,W) in [-1,1] to logits (B,T*N), one for each tap and patch; high means real.

    The backbone is frozen and in eval mode; gradients pass through it to the images.

    Args:


        backbone: a DINOv2; its frozen weights are not part of this module's state dict.
        taps: blocks whose outputs are classified, counted from 0.
        image_size: side in pixels to which images are resized, a multiple of the backbone's patch. UniTok's
            predecessors use random crops half of the time; here the input is always the whole image, so that logits do
            not depend on the global random state.
        kernel_size: odd kernel size of the convolution over patches.
        groups: groups of GroupNorm, a divisor of the width.

    Raises:
        ValueError: an argument is out of range.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Dinov2Model,
        *,
        taps: Sequence[int] = TAPS,
        image_size: int = 224,
        kernel_size: int = 9,
        groups: int = GROUPS,
    ) -> None:
        super().__init__()
        config = backbone.config
        width, layers = config.hidden_size, config.num_hidden_layers
        patch = config.patch_size
        assert isinstance(patch, int), "DINOv2's patches are square"
        if not taps or not all(0 <= tap < layers for tap in taps):
            raise ValueError(f"taps must name blocks between 0 and {layers - 1}, at least one, but got {tuple(taps)}.")
        if image_size < patch or image_size % patch:
            raise ValueError(f"image_size must be a multiple of the backbone's patch {patch}, but got {image_size}.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but got {kernel_size}.")
        if groups < 1 or width % groups:
            raise ValueError(f"groups must divide the backbone's width {width}, but got {groups}.")
        if kernel_size // 2 > (image_size // patch) ** 2:
            raise ValueError(
                f"kernel_size {kernel_size} is too wide for the {(image_size // patch) ** 2} patches of an image."
            )
        # In a tuple, so that it is not a submodule: it is not trained, averaged or stored in checkpoints.
        self._frozen = (backbone.requires_grad_(False).eval(),)
        self.taps, self.image_size = tuple(taps), image_size
        self.heads = nn.ModuleList([_head(width, kernel_size, groups) for _ in self.taps])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    @classmethod
    def from_pretrained(cls, name: str, *, taps: Sequence[int] = TAPS, image_size: int = 224) -> DinoDiscriminator:
        """Load published weights from the folder or hub id of a transformers DINOv2, such as ``facebook/dinov2-small``.

        Raises:
            OSError: there is no such model.
            ValueError: its files are wrong, see ``storage.weights.load_weights``.
        """
        from transformers import Dinov2Model

        backbone = load_weights(Dinov2Model.from_pretrained, name, dtype=torch.float32)
        return cls(backbone, taps=taps, image_size=image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B,3,H,W) in [-1,1] of any size: logits (B,T*N)."""
        (backbone,) = self._frozen
        if next(backbone.parameters()).device != images.device:
            backbone.to(images.device)  # pyright: ignore[reportArgumentType]
        pixels = ((images.float() + 1) / 2 - self.mean) / self.std
        side = (self.image_size, self.image_size)
        pixels = functional.interpolate(pixels, side, mode="bicubic", antialias=True, align_corners=False)
        states = backbone(pixels, output_hidden_states=True).hidden_states
        logits = []
        for tap, head in zip(self.taps, self.heads, strict=True):
            state_BND = states[tap + 1].float()  # the first one is the input of block 0
            logits.append(head(rearrange(state_BND[:, 1:] + state_BND[:, :1], "B N D -> B D N")).squeeze(1))
        return torch.cat(logits, dim=1)


class _Residual(nn.Module):
    """The mean of a block and its input, scaled to keep the variance."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_BDN: Tensor) -> Tensor:
        return (self.block(hidden_BDN) + hidden_BDN) / math.sqrt(2)


def _head(width: int, kernel_size: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        _block(width, 1, groups), _Residual(_block(width, kernel_size, groups)), spectral_norm(nn.Conv1d(width, 1, 1))
    )


def _block(width: int, kernel_size: int, groups: int) -> nn.Sequential:
    convolution = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, padding_mode="circular")
    return nn.Sequential(spectral_norm(convolution), nn.GroupNorm(groups, width), nn.LeakyReLU(0.2))
