"""The pixel branch's ViT decoder of both codes (paper section 3.2); its encoder is ``nn.vit.PixelEncoder``.

Shapes: B images, H x W pixels, N tokens, D width, d_s and d_p semantic and pixel channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semhitok.nn import PixelHead, Transformer, axial_rotary
from semhitok.tokenizers.semhitok.configuration import ConcatKind, SemHiTokConfig


class PixelDecoder(nn.Module):
    """Semantic and pixel codes to an image: (B,N,d_s), (B,N,d_p) -> (B,3,H,W), unbounded (paper eq. 6).

    ``concat`` is Table 9's variant: channels joined (``dim``), sequences joined (``length``, with the image taken from the
    pixel half), only the pixel code (``none``), or only the semantic code (``semantic``, Table 7's first row).
    """

    def __init__(self, config: SemHiTokConfig) -> None:
        super().__init__()
        self.concat: ConcatKind = config.concat
        width = config.decoder_width
        dims = {"dim": config.semantic_dim + config.pixel_dim, "semantic": config.semantic_dim}
        self.project_in = nn.Linear(dims.get(config.concat, config.pixel_dim), width)
        # Its own bias also tells the decoder which half of the sequence a token belongs to.
        self.project_semantic = nn.Linear(config.semantic_dim, width) if config.concat == "length" else None
        self.transformer = Transformer(layers=config.decoder_layers, width=width, heads=config.decoder_heads)
        self.head = PixelHead(config.patch_size, width, config.refine_channels)

    def forward(self, semantic_BND: Tensor, pixel_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        cosine, sine = axial_rotary(*grid, self.transformer.head_dim, pixel_BND.device)
        if self.concat == "dim":
            x_BND = self.project_in(torch.cat([semantic_BND, pixel_BND], dim=-1))
        else:
            x_BND = self.project_in(semantic_BND if self.concat == "semantic" else pixel_BND)
        if self.project_semantic is not None:
            x_BND = torch.cat([self.project_semantic(semantic_BND), x_BND], dim=1)
            cosine, sine = torch.cat([cosine, cosine]), torch.cat([sine, sine])
        x_BND = self.transformer(x_BND, (cosine, sine))
        return self.head(x_BND[:, -pixel_BND.shape[1] :], grid)
