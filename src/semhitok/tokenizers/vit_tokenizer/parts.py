"""The parts of a ViT tokenizer besides its quantizer.

Shapes: B images, H x W pixels, N tokens, T teacher channels, d_s semantic channels, S channels that the semantic decoder reads.
"""

from __future__ import annotations

from torch import Tensor, nn

from semhitok.nn import Patchify, PixelHead, Transformer, axial_rotary
from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig


class ViTEncoder(nn.Module):
    """Images to features: (B,3,H,W) in [-1,1] -> (B,N,pixel_dim)."""

    def __init__(self, config: ViTTokenizerConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.patchify = Patchify(config.patch_size, width)
        self.transformer = Transformer(layers=config.encoder_layers, width=width, heads=config.encoder_heads)
        self.project_out = nn.Linear(width, config.pixel_dim)

    def forward(self, pixel_values_BCHW: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, pixel_values_BCHW.device)
        return self.project_out(self.transformer(self.patchify(pixel_values_BCHW), rotary))


class ViTDecoder(nn.Module):
    """Codes to images: (B,N,D) -> (B,3,H,W), unbounded; reads the trailing ``pixel_channels`` of the codes."""

    def __init__(self, config: ViTTokenizerConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.channels = config.pixel_channels or config.code_dim
        self.project_in = nn.Linear(self.channels, width)
        self.transformer = Transformer(layers=config.decoder_layers, width=width, heads=config.decoder_heads)
        self.head = PixelHead(config.patch_size, width, config.refine_channels)

    def forward(self, codes_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, codes_BND.device)
        return self.head(self.transformer(self.project_in(codes_BND[..., -self.channels :]), rotary), grid)


class SemanticInput(nn.Module):
    """The teacher's features to semantic channels, Linear-Tanh-Linear: (B,N,T) -> (B,N,d_s)."""

    def __init__(self, teacher_dim: int, semantic_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(teacher_dim, teacher_dim)
        self.out = nn.Linear(teacher_dim, semantic_dim)

    def forward(self, features_BNT: Tensor) -> Tensor:
        return self.out(self.hidden(features_BNT).tanh())


class SemanticHead(nn.Module):
    """Codes to the teacher's features: (B,N,S) -> (B,N,T), a projection and self-attention layers."""

    def __init__(self, config: ViTTokenizerConfig) -> None:
        super().__init__()
        self.project_in = nn.Linear(config.semantic_channels, config.target_dim)
        self.transformer = Transformer(
            layers=config.semantic_decoder_layers, width=config.target_dim, heads=config.semantic_decoder_heads
        )
        self.project_out = nn.Linear(config.target_dim, config.target_dim)

    def forward(self, codes_BNS: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, codes_BNS.device)
        return self.project_out(self.transformer(self.project_in(codes_BNS), rotary))
