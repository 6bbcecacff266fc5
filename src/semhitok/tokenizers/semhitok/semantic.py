"""The semantic branch: a codebook distilled from a frozen text-aligned encoder (paper section 3.1).

Shapes: B images, N tokens, D teacher channels, d_s semantic channels, K semantic codes.
"""

from __future__ import annotations

from torch import Tensor, nn

from semhitok.nn import Transformer, axial_rotary
from semhitok.quantizers import QuantizerSettings, build_quantizer
from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.types import Quantized


class SemanticProjection(nn.Module):
    """Teacher features to the code space, Linear-Tanh-Linear as in VQKD: (B,N,D) -> (B,N,d_s)."""

    def __init__(self, teacher_dim: int, semantic_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(teacher_dim, teacher_dim)
        self.out = nn.Linear(teacher_dim, semantic_dim)

    def forward(self, features_BND: Tensor) -> Tensor:
        return self.out(self.hidden(features_BND).tanh())


class SemanticDecoder(nn.Module):
    """Semantic codes back to the teacher's features: (B,N,d_s) -> (B,N,D), projection and self-attention layers."""

    def __init__(self, config: SemHiTokConfig, teacher_dim: int) -> None:
        super().__init__()
        heads = config.semantic_decoder_heads
        if teacher_dim % heads or (teacher_dim // heads) % 4:
            raise ValueError(
                f"the teacher's {teacher_dim} channels must split into semantic_decoder_heads {heads} heads of a "
                "multiple of 4 channels"
            )
        self.project_in = nn.Linear(config.semantic_dim, teacher_dim)
        self.transformer = Transformer(layers=config.semantic_decoder_layers, width=teacher_dim, heads=heads)
        self.project_out = nn.Linear(teacher_dim, teacher_dim)

    def forward(self, codes_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        rotary = axial_rotary(*grid, self.transformer.head_dim, codes_BND.device)
        return self.project_out(self.transformer(self.project_in(codes_BND), rotary))


class SemanticBranch(nn.Module):
    """Projection, codebook and decoder of stage 1. ``projection`` is absent in a model without its encoder side."""

    def __init__(self, config: SemHiTokConfig, teacher_dim: int) -> None:
        super().__init__()
        self.projection = SemanticProjection(teacher_dim, config.semantic_dim) if config.encoder else None
        settings = QuantizerSettings(
            codebook_size=config.semantic_codebook_size,
            dim=config.semantic_dim,
            decay=config.semantic_decay,
            update_rule=config.semantic_update_rule,
        )
        self.quantizer = build_quantizer(config.semantic_quantizer, settings)
        self.decoder = SemanticDecoder(config, teacher_dim)

    def quantize(self, features_BND: Tensor) -> Quantized:
        """Teacher features (B,N,D) -> semantic codes (B,N,d_s) and ids in [0,K) (paper eq. 2)."""
        assert self.projection is not None, "a decode-only model has no semantic projection"
        return self.quantizer(self.projection(features_BND))
