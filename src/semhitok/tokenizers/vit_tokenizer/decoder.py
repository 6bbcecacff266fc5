"""The pixel decoder of a ViT tokenizer.

Shapes: B images, H x W pixels, N tokens, D channels of a code.
"""

from __future__ import annotations

from torch import Tensor, nn

from semhitok.nn import PixelHead, Transformer, axial_rotary
from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig


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
