"""Configuration of the ViT tokenizer, as which the systems of the comparison are built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from semhitok.quantizers import SEVERAL_CODES_PER_TOKEN, QuantizerSettings, quantizer_names
from semhitok.storage.configuration_fields import check_choice, check_counts, checked_fields
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.token_grid import TokenGrid

ALWAYS_SEVERAL = (*SEVERAL_CODES_PER_TOKEN, "factorized", "grouped_bits")
"""Quantizers whose ids are (B,N,C) even for one code per token; with one, another quantizer does the same."""


class ViTTokenizerConfig(PreTrainedConfig, TokenGrid):
    """Architecture of a ViT tokenizer: encoder, quantizer, decoder, and optional semantic parts.

    Args:
        system: name of the system that it stands for, for model cards and tables.
        image_size: side in pixels of the images that ``encode`` expects by default.
        patch_size: side in pixels of a patch.
        quantizer: one of ``quantizers.quantizer_names``, or the name of a registered one.
        codebook_size: K, codes of one codebook.
        codes_per_token: C.
        code_dim: D, channels that are quantized, including the semantic ones.
        levels: levels of each channel, for ``fsq``.
        table_dim: channels of the frozen table, for ``projected``; None for ``code_dim``.
        entropy_temperature: temperature of the entropy terms.
        semantic_dim: d_s, leading channels of the features that are projected from the teacher's features instead of the
            pixel encoder's; 0 for none.
        teacher_config: the frozen teacher, if ``semantic_dim`` is above 0.
        semantic_channels: leading channels of the codes from which the semantic decoder predicts the teacher's features; 0
            for no semantic decoder.
        pixel_channels: trailing channels of the codes that the pixel decoder reads; None for all.
        target_dim: channels of the predicted teacher features.
        semantic_decoder_layers, semantic_decoder_heads: self-attention layers of the semantic decoder, and their heads.
        encoder_layers, encoder_width, encoder_heads: the ViT pixel encoder.
        decoder_layers, decoder_width, decoder_heads: the ViT pixel decoder.
        refine_channels: see ``nn.PixelHead``.
        encoder: False for a model that only decodes and embeds ids.
        stages: finished training stages in order; written by training.
        provenance: licence, training data and recipe of the weights.

    Raises:
        ValueError: a value is out of range, or two values contradict each other.
    """

    model_type = "vit_tokenizer"
    sub_configs = {"teacher_config": TeacherConfig}  # pyright: ignore[reportAssignmentType]

    @checked_fields
    def __init__(
        self,
        system: str = "own",
        image_size: int = 256,
        patch_size: int = 16,
        quantizer: str = "normalized",
        codebook_size: int = 16384,
        codes_per_token: int = 1,
        code_dim: int = 8,
        levels: Sequence[int] = (),
        table_dim: int | None = None,
        entropy_temperature: float = 0.01,
        semantic_dim: int = 0,
        teacher_config: TeacherConfig | dict[str, Any] | None = None,
        semantic_channels: int = 0,
        pixel_channels: int | None = None,
        target_dim: int = 0,
        semantic_decoder_layers: int = 3,
        semantic_decoder_heads: int = 4,
        encoder_layers: int = 12,
        encoder_width: int = 768,
        encoder_heads: int = 12,
        decoder_layers: int = 12,
        decoder_width: int = 768,
        decoder_heads: int = 12,
        refine_channels: int = 0,
        encoder: bool = True,
        stages: list[str] | None = None,
        provenance: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.system = system
        self.image_size = image_size
        self.patch_size = patch_size
        self.quantizer = quantizer
        self.codebook_size = codebook_size
        self.codes_per_token = codes_per_token
        self.code_dim = code_dim
        self.levels = list(levels)
        self.table_dim = table_dim
        self.entropy_temperature = entropy_temperature
        self.semantic_dim = semantic_dim
        self.teacher_config = TeacherConfig(**teacher_config) if isinstance(teacher_config, dict) else teacher_config
        self.semantic_channels = semantic_channels
        self.pixel_channels = pixel_channels
        self.target_dim = target_dim
        self.semantic_decoder_layers = semantic_decoder_layers
        self.semantic_decoder_heads = semantic_decoder_heads
        self.encoder_layers = encoder_layers
        self.encoder_width = encoder_width
        self.encoder_heads = encoder_heads
        self.decoder_layers = decoder_layers
        self.decoder_width = decoder_width
        self.decoder_heads = decoder_heads
        self.refine_channels = refine_channels
        self.encoder = encoder
        self.stages = list(stages or [])
        self.provenance = dict(provenance or {})
        self._check()
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """K: each of a token's C ids is in [0, vocab_size)."""
        return self.codebook_size

    @property
    def pixel_dim(self) -> int:
        """Channels of the pixel encoder's features."""
        return self.code_dim - self.semantic_dim

    def quantizer_settings(self) -> QuantizerSettings:
        """The settings with which the quantizer is built."""
        return QuantizerSettings(
            codebook_size=self.codebook_size,
            dim=self.code_dim,
            codes_per_token=self.codes_per_token,
            levels=tuple(self.levels),
            semantic_dim=self.semantic_dim,
            table_dim=self.table_dim,
            entropy_temperature=self.entropy_temperature,
        )

    def _check(self) -> None:
        names = ("image_size", "patch_size", "codebook_size", "codes_per_token", "code_dim", "semantic_decoder_heads")
        names += ("encoder_width", "encoder_heads", "decoder_width", "decoder_heads")
        check_counts({name: getattr(self, name) for name in names})
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        check_choice("quantizer", self.quantizer, quantizer_names())
        if self.quantizer in ALWAYS_SEVERAL and self.codes_per_token < 2:
            raise ValueError(
                f"quantizer {self.quantizer} needs codes_per_token of at least 2, got {self.codes_per_token}"
            )
        if not 0 <= self.semantic_dim < self.code_dim:
            raise ValueError(f"semantic_dim must be in [0, code_dim {self.code_dim}), got {self.semantic_dim}")
        if (self.semantic_dim > 0) != (self.teacher_config is not None):
            raise ValueError(
                f"a teacher feeds the semantic channels: give semantic_dim (now {self.semantic_dim}) and teacher_config together"
            )
        if not 0 <= self.semantic_channels <= self.code_dim:
            raise ValueError(
                f"semantic_channels must be in [0, code_dim {self.code_dim}], got {self.semantic_channels}"
            )
        if self.pixel_channels is not None and not 1 <= self.pixel_channels <= self.code_dim:
            raise ValueError(
                f"pixel_channels must be None or in [1, code_dim {self.code_dim}], got {self.pixel_channels}"
            )
        if (self.semantic_channels > 0) != (self.target_dim > 0):
            raise ValueError(
                "a semantic decoder needs its input and its output: give semantic_channels (now "
                f"{self.semantic_channels}) and target_dim (now {self.target_dim}) together"
            )
        if self.target_dim % (4 * self.semantic_decoder_heads):
            raise ValueError(
                f"target_dim {self.target_dim} must split into semantic_decoder_heads {self.semantic_decoder_heads} heads of a "
                "multiple of 4 channels"
            )
