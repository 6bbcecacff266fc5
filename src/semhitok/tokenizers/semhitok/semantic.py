"""The semantic branch: a codebook distilled from a frozen text-aligned encoder (paper section 3.1).

Shapes: B images, N tokens, D teacher channels, d_s semantic channels, K semantic codes.
"""

from __future__ import annotations

from torch import Tensor, nn

from semhitok.nn.vit import TeacherDecoder, TeacherProjection
from semhitok.quantizers import QuantizerSettings, build_quantizer
from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.types import Quantized


class SemanticBranch(nn.Module):
    """Projection, codebook and decoder of stage 1. ``projection`` is absent in a model without its encoder side."""

    def __init__(self, config: SemHiTokConfig, teacher_dim: int) -> None:
        super().__init__()
        self.projection = TeacherProjection(teacher_dim, config.semantic_dim) if config.encoder else None
        settings = QuantizerSettings(
            codebook_size=config.semantic_codebook_size,
            dim=config.semantic_dim,
            decay=config.semantic_decay,
            update_rule=config.semantic_update_rule,
        )
        self.quantizer = build_quantizer(config.semantic_quantizer, settings)
        heads = config.semantic_decoder_heads
        if teacher_dim % heads or (teacher_dim // heads) % 4:
            raise ValueError(
                f"the teacher's {teacher_dim} channels must split into semantic_decoder_heads {heads} heads of a "
                "multiple of 4 channels"
            )
        self.decoder = TeacherDecoder(
            channels=config.semantic_dim, teacher_dim=teacher_dim, layers=config.semantic_decoder_layers, heads=heads
        )

    def quantize(self, features_BND: Tensor) -> Quantized:
        """Teacher features (B,N,D) -> semantic codes (B,N,d_s) and ids in [0,K) (paper eq. 2)."""
        assert self.projection is not None, "a decode-only model has no semantic projection"
        return self.quantizer(self.projection(features_BND))
