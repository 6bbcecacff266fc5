"""Parts that ViT tokenizers share: the pixel encoder, and what stands before and behind semantic codes.

Shapes: B images, H x W pixels, N tokens, C channels of features or codes, D teacher channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from semhitok.nn.patches import Patchify
from semhitok.nn.rotary import axial_rotary
from semhitok.nn.transformer import Transformer


class PixelEncoder(nn.Module):
    """Images to features, not yet normalised: (B,3,H,W) in [-1,1] -> (B,N,C)."""

    def __init__(self, *, patch_size: int, layers: int, width: int, heads: int, channels: int) -> None:
        super().__init__()
        self.patchify = Patchify(patch_size, width)
        self.transformer = Transformer(layers=layers, width=width, heads=heads)
        self.project_out = nn.Linear(width, channels)

    def forward(self, pixel_values_BCHW: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, pixel_values_BCHW.device)
        return self.project_out(self.transformer(self.patchify(pixel_values_BCHW), rotary))


class TeacherProjection(nn.Module):
    """Teacher features to the code space, Linear-Tanh-Linear as in VQKD: (B,N,D) -> (B,N,C)."""

    def __init__(self, teacher_dim: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(teacher_dim, teacher_dim)
        self.out = nn.Linear(teacher_dim, channels)

    def forward(self, features_BND: Tensor) -> Tensor:
        return self.out(self.hidden(features_BND).tanh())


class TeacherDecoder(nn.Module):
    """Codes back to the teacher's features: (B,N,C) -> (B,N,D), a projection and self-attention layers."""

    def __init__(self, *, channels: int, teacher_dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, teacher_dim)
        self.transformer = Transformer(layers=layers, width=teacher_dim, heads=heads)
        self.project_out = nn.Linear(teacher_dim, teacher_dim)

    def forward(self, codes_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, codes_BNC.device)
        return self.project_out(self.transformer(self.project_in(codes_BNC), rotary))
