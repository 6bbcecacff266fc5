"""SemHiTok: semantic-guided hierarchical codebook tokenizer (arXiv 2503.06764, sections 3.1 to 3.2).

    image -> frozen teacher -> projection -> semantic code k        (stage 1)
    image -> pixel encoder  -> pixel code j of sub-codebook k only  (stage 2)
    id = k * m + j  (with sub-codebooks of different sizes: first id of k, plus j)
    [semantic code ; pixel code] -> pixel decoder -> image          (stages 2 and 3)

Shapes: B images, H x W pixels, N tokens, D teacher channels, d_s and d_p semantic and pixel channels.
"""

from __future__ import annotations

import os
from typing import Any, Self

import torch
from torch import Tensor

from semhitok.nn.exact import exact_fp32
from semhitok.nn.patches import resize
from semhitok.nn.vit import PixelEncoder
from semhitok.quantizers import HierarchicalQuantizer
from semhitok.teachers import Teacher
from semhitok.tokenizers.base import TokenizerModel
from semhitok.tokenizers.checks import check_grid, check_ids, check_pixel_values, encoding_part
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.rounding import is_rounded
from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
from semhitok.tokenizers.semhitok.description import card_facts, settings
from semhitok.tokenizers.semhitok.pixel import PixelDecoder
from semhitok.tokenizers.semhitok.semantic import SemanticBranch
from semhitok.types import Embedded, Encoded, Quantized, TokenizerOutput


class SemHiTokModel(TokenizerModel):
    """The tokenizer: ``encode``, ``decode``, ``embed``, and ``forward`` for both with the losses.

    Any image whose sides are at least one patch can be encoded; the token grid is (H // patch, W // patch), row by
    row, and positions are axial rotary, so nothing depends on the training resolution. The teacher sees the image scaled by
    ``teacher_config.image_size / image_size``; its grid must equal the token grid. If H or W is not a multiple of the
    patch size the pixel branch sees the whole image resampled to the grid, and that size is what ``decode`` returns.

    Codebooks stay in fp32 when the model is cast. ``encode`` computes in true fp32 whatever autocast or precision of products
    the caller has set, and ``from_pretrained(dtype=torch.bfloat16)`` leaves the encoder side in fp32, so that ids stay what they
    are; to encode in bf16 and accept that some ids change, cast the loaded model.
    """

    config: SemHiTokConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = SemHiTokConfig
    encoder_side = ("teacher.", "semantic.projection.", "pixel_encoder.")
    _keep_in_fp32_modules_strict = {"semantic.quantizer", "pixel_quantizer"} | {
        part.rstrip(".") for part in encoder_side
    }
    has_text_tower = False

    def __init__(self, config: SemHiTokConfig) -> None:
        super().__init__(config)
        self.teacher = Teacher(config.teacher_config) if config.encoder else None
        self.semantic = SemanticBranch(config, config.teacher_config.backbone_config.hidden_size)
        self.pixel_encoder: PixelEncoder | None = None
        if config.encoder:
            self.pixel_encoder = PixelEncoder(
                patch_size=config.patch_size,
                layers=config.encoder_layers,
                width=config.encoder_width,
                heads=config.encoder_heads,
                channels=config.pixel_dim,
            )
        self.pixel_quantizer = HierarchicalQuantizer(
            config.semantic_codebook_size,
            config.subcodebook_size if config.subcodebook_sizes is None else config.subcodebook_sizes,
            config.pixel_dim,
            choice=config.pixel_codebook,
            semantic_groups=config.semantic_groups,
        )
        self.pixel_decoder = PixelDecoder(config)
        if config.encoder:
            self._check_grid(config.image_size, config.image_size)
        self.post_init()

    @property
    def semantic_codebook_size(self) -> int:
        """K."""
        return self.config.semantic_codebook_size

    @property
    def id_tensors(self) -> tuple[str, ...]:
        """Prefixes of the tensors that determine ids, without decoders and the statistics of an EMA codebook.

        All of the teacher is included, even layers after the one that is used, because it never changes.
        """
        codes = [f"semantic.quantizer.{name}" for name in self.semantic.quantizer.codebooks]
        semantic = ("teacher.", "semantic.projection.", *codes)
        # With one pixel code per semantic code, the pixel branch does not affect the ids.
        return semantic if self.config.subcodebook_size == 1 else (*semantic, "pixel_encoder.", "pixel_quantizer.")

    @property
    def rounding(self) -> Rounding:
        """Teacher, stage 1 and codebooks are not rounded, so that semantic ids stay bit-identical.

        Unless the model was trained on rounded weights (``Recipe.rounded``): two bytes hold them exactly, then. On 256 scenes, rounding
        cost a partly trained ``nano`` 0.003 dB and changed 4 of 10,000 joint ids.
        """
        if is_rounded(self):
            others = ("teacher.", "semantic.projection.", "semantic.decoder.", "pixel_encoder.", "pixel_decoder.")
            return Rounding(others, "everything but the codebooks in bfloat16")
        return Rounding(("pixel_encoder.", "pixel_decoder."), "pixel encoder and decoder in bfloat16")

    def encode_semantic(self, pixel_values: Tensor) -> Quantized:
        """Images (B,3,H,W) in [-1,1] -> semantic codes (B,N,d_s) and ids in [0,K), in true fp32 as ``encode``."""
        with exact_fp32(pixel_values.device):
            return self.semantic.quantize(self.teacher_features(pixel_values))

    def teacher_features(self, pixel_values: Tensor) -> Tensor:
        """The frozen teacher's features of images (B,3,H,W) in [-1,1] -> (B,N,D)."""
        teacher = encoding_part(self.teacher)
        self._check_images(pixel_values)
        return teacher(resize(pixel_values, *teacher.size_beside(self.config.image_size, *pixel_values.shape[-2:])))

    def pixel_features(self, pixel_values: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> pixel features (B,N,d_p) before quantization."""
        pixel_encoder = encoding_part(self.pixel_encoder)
        self._check_images(pixel_values)
        return pixel_encoder(self.pixel_view(pixel_values), self.config.grid(*pixel_values.shape[-2:]))

    def pixel_view(self, pixel_values: Tensor) -> Tensor:
        """The image as the pixel branch sees and predicts it: resampled to a whole number of patches."""
        rows, columns = self.config.grid(*pixel_values.shape[-2:])
        return resize(pixel_values, rows * self.config.patch_size, columns * self.config.patch_size)

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Encoded:
        """Images to token ids.

        Args:
            pixel_values: (B,3,H,W) in [-1,1].

        Returns:
            ids (B,N) in [0, K*m), their semantic part (B,N), and the grid (rows, columns).
        """
        semantic_ids = self.encode_semantic(pixel_values).ids
        with exact_fp32(pixel_values.device):
            pixel_ids = self.pixel_quantizer(self.pixel_features(pixel_values), semantic_ids).ids
        ids = self.pixel_quantizer.flatten_ids(semantic_ids, pixel_ids)
        return Encoded(ids=ids, semantic_ids=semantic_ids, grid=self.config.grid(*pixel_values.shape[-2:]))

    def embed(self, ids: Tensor) -> Embedded:
        """Ids (B,N) in [0, K*m) -> semantic codes (B,N,d_s) and l2-normalised pixel codes (B,N,d_p), fp32."""
        semantic, pixel = self._codes(ids, check_range=ids.device.type == "cpu")  # called for every generated token
        return Embedded(semantic=semantic, pixel=pixel)

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids (B,N) -> images (B,3,H,W) clamped to [-1,1]. ``grid`` (rows, columns) defaults to a square one."""
        semantic, pixel = self._codes(ids)
        return self.decode_features(semantic, pixel, check_grid(ids, grid)).clamp(-1, 1)

    def decode_features(self, semantic: Tensor, pixel: Tensor, grid: tuple[int, int]) -> Tensor:
        """Semantic codes (B,N,d_s) and pixel codes (B,N,d_p) -> images (B,3,H,W), not clamped (paper eq. 6)."""
        dtype = self.pixel_decoder.project_in.weight.dtype
        return self.pixel_decoder(semantic.to(dtype), pixel.to(dtype), grid)

    def decode_semantic(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids (B,N) -> the teacher's features (B,N,D) as reconstructed by the semantic decoder; for understanding only,
        because the decoder attends over the whole image and does not suit autoregressive generation."""
        semantic_ids, _ = self.pixel_quantizer.split_ids(check_ids(ids, self.vocab_size))
        codes = self.semantic.quantizer.lookup(semantic_ids).to(self.semantic.decoder.project_in.weight.dtype)
        return self.semantic.decoder(codes, check_grid(ids, grid))

    def embedding_table(self) -> Tensor:
        """All embeddings in id order: (V, d_s + d_p), fp32; row id = [semantic code ; pixel code].

        Raises:
            ValueError: the pixel code of an id depends on its position (``pixel_codebook`` random).
        """
        if self.config.pixel_codebook == "random":
            raise ValueError(
                "with pixel_codebook random, the pixel code of an id depends on its position: no table exists"
            )
        semantic, pixel = self._codes(torch.arange(self.vocab_size, device=self.device)[None])
        return torch.cat([semantic[0], pixel[0]], dim=-1)

    def forward(
        self, pixel_values: Tensor, semantic_ids: Tensor | None = None, semantic_codes: Tensor | None = None
    ) -> TokenizerOutput:
        """Image to tokens to image, with gradients for the pixel branch.

        Args:
            pixel_values: (B,3,H,W) in [-1,1].
            semantic_ids: (B,N) ids of stage 1, if they are known (cached); computed by default.
            semantic_codes: (B,N,d_s) the codes of these ids with gradients, for joint training of both branches; by
                default looked up without gradients.

        Returns:
            The reconstruction of ``pixel_view(pixel_values)`` (not clamped), joint ids, the pixel quantizer's losses.
        """
        if semantic_ids is None:
            semantic_ids = self.encode_semantic(pixel_values).ids
        if semantic_codes is None:
            semantic_codes = self.semantic.quantizer.lookup(semantic_ids).detach()
        pixel_features = self.pixel_features(pixel_values)
        if semantic_ids.shape != pixel_features.shape[:2]:
            raise ValueError(
                f"semantic ids must have shape {tuple(pixel_features.shape[:2])}, got {tuple(semantic_ids.shape)}"
            )
        quantized = self.pixel_quantizer(pixel_features, semantic_ids)
        grid = self.config.grid(*pixel_values.shape[-2:])
        return TokenizerOutput(
            reconstruction=self.decode_features(semantic_codes, quantized.codes, grid),
            ids=self.pixel_quantizer.flatten_ids(semantic_ids, quantized.ids),
            losses=quantized.losses,
            pixel_features=pixel_features,
        )

    def settings(self) -> dict[str, Any]:
        """See the protocol ``Tokenizer``."""
        return settings(self.config, self.num_tokens)

    def card_facts(self) -> CardFacts:
        """See the protocol ``Tokenizer``."""
        return card_facts(self.config)

    @classmethod
    def from_teacher(cls, teacher: Teacher, config: SemHiTokConfig) -> SemHiTokModel:
        """A fresh tokenizer around a loaded teacher; ``config.teacher_config`` is replaced by the teacher's own."""
        config.teacher_config = teacher.config
        model = cls(config)
        assert model.teacher is not None, "a tokenizer is trained with its encoder side"
        model.teacher.load_state_dict(teacher.state_dict())
        return model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] = "mini", *args: Any, **kwargs: Any
    ) -> Self:
        """See ``TokenizerModel``; by default the bundled ``mini``. ``encoder=False`` omits the teacher and the pixel encoder."""
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def _check_grid(self, height: int, width: int) -> None:
        assert self.teacher is not None
        seen = self.teacher.size_beside(self.config.image_size, height, width)
        wanted, found = self.config.grid(height, width), self.teacher.grid(*seen)
        if wanted != found:
            raise ValueError(
                f"the teacher's grid {found[0]}x{found[1]} does not match the token grid {wanted[0]}x{wanted[1]} of a "
                f"{height}x{width} image with patch_size {self.config.patch_size}; set teacher_config.image_size "
                f"(now {self.config.teacher_config.image_size}) so that both agree"
            )

    def _check_images(self, pixel_values: Tensor) -> None:
        height, width = check_pixel_values(pixel_values)
        if min(height, width) < self.config.patch_size:
            raise ValueError(
                f"images must be at least {self.config.patch_size} pixels on each side (one patch), got {height}x{width}"
            )
        self._check_grid(height, width)

    def _codes(self, ids: Tensor, *, check_range: bool = True) -> tuple[Tensor, Tensor]:
        """Semantic codes (B,N,d_s) and pixel codes (B,N,d_p) of checked ids (B,N)."""
        ids = check_ids(ids, self.vocab_size, check_range=check_range)
        semantic_ids, pixel_ids = self.pixel_quantizer.split_ids(ids)
        return self.semantic.quantizer.lookup(semantic_ids), self.pixel_quantizer.lookup(semantic_ids, pixel_ids)
