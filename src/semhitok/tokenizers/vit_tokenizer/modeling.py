"""A ViT tokenizer: one encoder and decoder for all systems of the comparison, which differ in the quantizer and semantic parts.

    image -> pixel encoder ----------------------.
    image -> frozen teacher -> projection (SDE,  +-> quantizer -> ids
             TokenFlow) -------------------------'      |-> pixel decoder -> image
                                                        '-> semantic decoder -> the teacher's features

Shapes: B images, H x W pixels, N tokens, C codes per token, D channels of a code, T teacher channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.nn.exact import exact_fp32
from semhitok.nn.patches import resize
from semhitok.nn.vit import PixelEncoder, TeacherDecoder, TeacherProjection
from semhitok.quantizers import build_quantizer
from semhitok.teachers import Teacher
from semhitok.tokenizers.base import TokenizerModel
from semhitok.tokenizers.checks import check_grid, check_ids, check_patches, encoding_part
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig
from semhitok.tokenizers.vit_tokenizer.decoder import ViTDecoder
from semhitok.tokenizers.vit_tokenizer.description import card_facts, settings
from semhitok.types import Embedded, Encoded


@dataclass(frozen=True)
class ViTTokenizerOutput:
    """A full pass, with what training needs.

    Attributes:
        reconstruction: (B,3,H,W), targets in [-1,1], not clamped.
        ids: (B,N) int64, or (B,N,C) with several codes per token.
        losses: the quantizer's unweighted terms by name.
        features: (B,N,D) before quantization.
        codes: (B,N,D), straight-through.
    """

    reconstruction: Tensor
    ids: Tensor
    losses: dict[str, Tensor]
    features: Tensor
    codes: Tensor


class ViTTokenizerModel(TokenizerModel):
    """The tokenizer: ``encode``, ``decode``, ``embed``, and ``forward`` for training.

    Images whose sides are multiples of the patch size can be encoded; the grid is (H / patch, W / patch), row by row, and
    positions are axial rotary. Codebooks stay in fp32 when the model is cast. In eval mode, features are computed in true fp32
    whatever autocast the caller has set, so that ids do not depend on it.
    """

    config: ViTTokenizerConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = ViTTokenizerConfig
    encoder_side = ("teacher.", "semantic_input.", "encoder.")
    _keep_in_fp32_modules_strict = {"quantizer"} | {part.rstrip(".") for part in encoder_side}
    rounding = Rounding(("decoder.",), "decoder in bfloat16")
    has_text_tower = False
    semantic_codebook_size = None  # ids have no semantic part of their own

    def __init__(self, config: ViTTokenizerConfig) -> None:
        super().__init__(config)
        teacher_config = config.teacher_config if config.encoder else None
        self.teacher = None if teacher_config is None else Teacher(teacher_config)
        self.semantic_input: TeacherProjection | None = None
        if self.teacher is not None:
            self.semantic_input = TeacherProjection(self.teacher.dim, config.semantic_dim)
        self.encoder: PixelEncoder | None = None
        if config.encoder:
            self.encoder = PixelEncoder(
                patch_size=config.patch_size,
                layers=config.encoder_layers,
                width=config.encoder_width,
                heads=config.encoder_heads,
                channels=config.pixel_dim,
            )
        self.quantizer = build_quantizer(config.quantizer, config.quantizer_settings())
        self._check_codes()
        self.decoder = ViTDecoder(config)
        self.semantic_decoder: TeacherDecoder | None = None
        if config.semantic_channels:
            self.semantic_decoder = TeacherDecoder(
                channels=config.semantic_channels,
                teacher_dim=config.target_dim,
                layers=config.semantic_decoder_layers,
                heads=config.semantic_decoder_heads,
            )
        if self.teacher is not None:
            self._check_grid(config.image_size, config.image_size)
        self.post_init()

    @property
    def id_tensors(self) -> tuple[str, ...]:
        """Prefixes of the tensors that determine ids, without the statistics of an EMA codebook."""
        codes = tuple(f"quantizer.{name}" for name in self.quantizer.codebooks)
        return ("encoder.", *codes) if self.teacher is None else ("teacher.", "semantic_input.", "encoder.", *codes)

    def features(self, pixel_values: Tensor, teacher_features: Tensor | None = None) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> features (B,N,D) before quantization.

        Args:
            pixel_values: images.
            teacher_features: (B,N,T) the teacher's features of these images, if they are known (cached).
        """
        encoding_part(self.encoder)
        grid = self._check_images(pixel_values)
        if self.training:
            return self._features(pixel_values, teacher_features, grid)
        with exact_fp32(pixel_values.device):
            return self._features(pixel_values, teacher_features, grid)

    def teacher_features(self, pixel_values: Tensor) -> Tensor:
        """The features (B,N,T) of the teacher that feeds this tokenizer, of images (B,3,H,W) in [-1,1]."""
        if self.teacher is None:
            raise ValueError(f"no teacher feeds this tokenizer ({self.config.system})")
        seen = self.teacher.size_beside(self.config.image_size, *pixel_values.shape[-2:])
        return self.teacher(resize(pixel_values, *seen))

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Encoded:
        """Images (B,3,H,W) in [-1,1] -> ids (B,N), or (B,N,C) with several codes per token, and the grid (rows, columns).

        Raises:
            ValueError: the size of the images is invalid, or the model has no encoder side.
        """
        ids = self.quantizer(self.features(pixel_values)).ids
        return Encoded(ids=ids, grid=self.config.grid(*pixel_values.shape[-2:]))

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids -> images (B,3,H,W) clamped to [-1,1]. ``grid`` (rows, columns) defaults to a square one.

        Raises:
            ValueError: ids are out of range or of another shape, or the grid does not have N tokens.
        """
        return self._draw(self._lookup(ids), check_grid(ids, grid)).clamp(-1, 1)

    def embed(self, ids: Tensor) -> Embedded:
        """Ids -> codes, fp32: the teacher-fed channels as ``semantic``, if there are any, and the others as ``pixel``."""
        codes, channels = self._lookup(ids), self.config.semantic_dim
        return Embedded(semantic=codes[..., :channels] if channels else None, pixel=codes[..., channels:])

    def decode_semantic(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids -> the teacher's features (B,N,T) as predicted by the semantic decoder, which attends over the whole image.

        Raises:
            ValueError: there is no semantic decoder, or as for ``decode``.
        """
        return self.predict_features(self._lookup(ids), check_grid(ids, grid))

    def predict_features(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes (B,N,D) -> the teacher's features (B,N,T), with gradients."""
        if self.semantic_decoder is None:
            raise ValueError(f"this tokenizer ({self.config.system}) has no semantic decoder")
        read = codes[..., : self.config.semantic_channels]
        return self.semantic_decoder(read.to(self.semantic_decoder.project_in.weight.dtype), grid)

    def forward(self, pixel_values: Tensor, teacher_features: Tensor | None = None) -> ViTTokenizerOutput:
        """Image to tokens to image, with gradients; arguments as in ``features``."""
        features = self.features(pixel_values, teacher_features)
        quantized = self.quantizer(features)
        grid = self.config.grid(*pixel_values.shape[-2:])
        return ViTTokenizerOutput(
            reconstruction=self._draw(quantized.codes, grid),
            ids=quantized.ids,
            losses=quantized.losses,
            features=features,
            codes=quantized.codes,
        )

    def settings(self) -> dict[str, Any]:
        """See the protocol ``Tokenizer``."""
        return settings(self.config, self.num_tokens)

    def card_facts(self) -> CardFacts:
        """See the protocol ``Tokenizer``."""
        return card_facts(self.config)

    def _features(self, pixel_values: Tensor, teacher_features: Tensor | None, grid: tuple[int, int]) -> Tensor:
        assert self.encoder is not None
        pixel = self.encoder(pixel_values, grid)
        if self.semantic_input is None:
            return pixel
        known = self.teacher_features(pixel_values) if teacher_features is None else teacher_features
        semantic = self.semantic_input(known.to(self.semantic_input.out.weight.dtype))
        return torch.cat([semantic, pixel], dim=-1)

    def _draw(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.decoder(codes.to(self.decoder.project_in.weight.dtype), grid)

    def _lookup(self, ids: Tensor) -> Tensor:
        """Check ids (B,N) or (B,N,C) and look up their codes (B,N,D)."""
        return self.quantizer.lookup(
            check_ids(ids, self.vocab_size, self.codes_per_token if self.codes_per_token > 1 else None)
        )

    def _check_codes(self) -> None:
        shape = self.quantizer.counts_shape
        wanted = (self.vocab_size,) if self.codes_per_token == 1 else (self.codes_per_token, self.vocab_size)
        if shape != wanted:
            raise ValueError(
                f"quantizer {self.config.quantizer} has {' x '.join(map(str, shape))} codes with these settings, but the "
                f"configuration says {' x '.join(map(str, wanted))}: set codebook_size, codes_per_token, code_dim or levels to match"
            )

    def _check_grid(self, height: int, width: int) -> None:
        assert self.teacher is not None
        seen = self.teacher.size_beside(self.config.image_size, height, width)
        wanted, found = self.config.grid(height, width), self.teacher.grid(*seen)
        if wanted != found:
            raise ValueError(
                f"the teacher's grid {found[0]}x{found[1]} does not match the token grid {wanted[0]}x{wanted[1]} of a "
                f"{height}x{width} image; set teacher_config.image_size so that both agree"
            )

    def _check_images(self, pixel_values: Tensor) -> tuple[int, int]:
        height, width = check_patches(pixel_values, self.config.patch_size)
        if self.teacher is not None:
            self._check_grid(height, width)
        return self.config.grid(height, width)
