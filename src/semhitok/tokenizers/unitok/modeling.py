"""UniTok: one tokenizer trained by reconstruction and by image-text contrast (arXiv 2502.20321, section 3).

    image -> encoder -> projection to a narrow space -> C codes (one from each codebook) -> projection back
                                                      |-> decoder -> image
                                                      |-> mean over tokens -> image embedding  <->  text embedding

Shapes: B images, H x W pixels, N tokens, C codes per token, D channels, W channels of the narrow space, E of the shared one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection
from transformers import initialization as init

from semhitok.nn.attention_projection import AttentionProjection
from semhitok.nn.exact import exact_fp32, without_autocast
from semhitok.nn.vitamin import EPSILON
from semhitok.quantizers import (
    SEVERAL_CODES_PER_TOKEN,
    MultiCodebookQuantizer,
    QuantizerSettings,
    TokenQuantizer,
    build_quantizer,
)
from semhitok.quantizers.base import Float32Module
from semhitok.tokenizers.base import TokenizerModel
from semhitok.tokenizers.checks import check_grid, check_ids, check_patches, encoding_part
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.description import card_facts, settings
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.towers import UniTokDecoder, UniTokEncoder
from semhitok.types import Embedded, Encoded, Quantized

INITIAL_SCALE = 1 / 0.07


@dataclass(frozen=True)
class UniTokOutput:
    """A full pass, with what training needs.

    Attributes:
        reconstruction: (B,3,H,W), targets in [-1,1], not clamped; None if not requested.
        ids: (B,N,C) int64 with several codes per token, (B,N) with one, (B,N,0) without a quantizer.
        losses: the quantizer's unweighted terms by name; empty without one.
        features: (B,N,W) before quantization.
        image_embedding: (B,E), l2-normalised.
    """

    reconstruction: Tensor | None
    ids: Tensor
    losses: dict[str, Tensor]
    features: Tensor
    image_embedding: Tensor


class Projection(Float32Module):
    """(B,N,D) -> (B,N,W) or back, in fp32 regardless of autocast, on which ids must not depend."""

    def __init__(self, config: UniTokConfig, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.map: nn.Module
        match config.projection:
            case "attention":
                heads = config.projection_heads or config.channels // config.width
                self.map = AttentionProjection(
                    channels_in, channels_out, heads
                ).float()  # the default dtype may be another
            case "linear":
                self.map = nn.Linear(channels_in, channels_out, dtype=torch.float32)
            case "none":
                self.map = nn.Identity()

    def forward(self, x_BND: Tensor) -> Tensor:
        with without_autocast(x_BND.device):
            return self.map(x_BND.float())


class ImageHead(Float32Module):
    """Quantized tokens to the image embedding by mean, norm and linear layer: (B,N,D) -> (B,E), l2-normalised."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPSILON, dtype=torch.float32)
        self.project = nn.Linear(channels, embed_dim, dtype=torch.float32)

    def forward(self, x_BND: Tensor) -> Tensor:
        with without_autocast(x_BND.device):
            return F.normalize(self.project(self.norm(x_BND.float().mean(dim=1))), dim=-1)


class UniTokModel(TokenizerModel):
    """The tokenizer: ``encode``, ``decode``, ``embed``; ``image_embedding`` and ``text_embedding``; ``forward`` for training.

    Images whose sides are multiples of 16 can be encoded; the token grid is (H / 16, W / 16), row by row. Codebooks,
    projections and image head stay in fp32 when the model is cast, and in eval mode autocast does not change ids.

    With ``quantizer`` none features stay continuous: ``encode``, ``decode`` and ``embed`` raise a ``ValueError``.
    """

    config: UniTokConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = UniTokConfig
    input_modalities = ("image", "text")  # pyright: ignore[reportAssignmentType]
    encoder_side = ("encoder.", "project_down.", "image_head.", "text_model.", "logit_scale")
    _keep_in_fp32_modules_strict = {"quantizer", "project_down", "project_up", "image_head"}
    semantic_codebook_size = None  # semantics and appearance share the codes

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__(config)
        self.encoder = UniTokEncoder(config) if config.encoder else None
        self.project_down = Projection(config, config.channels, config.width) if config.encoder else None
        self.quantizer = _build_quantizer(config)
        self.project_up = Projection(config, config.width, config.channels)
        self.decoder = UniTokDecoder(config)
        self.image_head = ImageHead(config.channels, config.embed_dim) if config.encoder else None
        has_text = config.encoder and config.text_config is not None
        self.text_model = CLIPTextModelWithProjection(config.text_config) if has_text else None  # pyright: ignore
        if config.encoder:
            self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))
        self.post_init()

    @property
    def id_tensors(self) -> tuple[str, ...]:
        """Prefixes of the tensors that determine ids, without the statistics of an EMA codebook."""
        codes = () if self.quantizer is None else self.quantizer.codebooks
        return ("encoder.", "project_down.", *(f"quantizer.{name}" for name in codes))

    @property
    def has_text_tower(self) -> bool:
        """Whether texts can be embedded."""
        return self.text_model is not None

    @property
    def rounding(self) -> Rounding:
        """Encoder, projections, codebooks and image head are not rounded: ids and image embeddings stay bit-identical."""
        sentence = "decoder and text tower in bfloat16" if self.has_text_tower else "decoder in bfloat16"
        return Rounding(("decoder.", "text_model."), sentence)

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Encoded:
        """Images (B,3,H,W) in [-1,1] -> ids (B,N,C) in [0, vocab_size) and the grid (rows, columns).

        Raises:
            ValueError: the size of the images is invalid, or there are no ids (``encoder`` False, ``quantizer`` none).
        """
        ids = self._discrete()(self.features(pixel_values)).ids
        return Encoded(ids=ids if ids.ndim == 3 else ids[..., None], grid=self.config.grid(*pixel_values.shape[-2:]))

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids (B,N,C) -> images (B,3,H,W) clamped to [-1,1]. ``grid`` (rows, columns) defaults to a square one.

        Raises:
            ValueError: ids are out of range or of another shape, or the grid does not have N tokens.
        """
        return self._draw(self.project_up(self._lookup(ids)), check_grid(ids, grid)).clamp(-1, 1)

    def embed(self, ids: Tensor) -> Embedded:
        """Ids (B,N,C) -> quantized features (B,N,W), fp32, as ``pixel``, which also carry the semantics."""
        return Embedded(semantic=None, pixel=self._lookup(ids, check_range=ids.device.type == "cpu"))

    def projected_features(self, embedded: Embedded) -> dict[str, Tensor]:
        """``projected``: tokens after the projection, the input of image head, decoder and models for understanding."""
        return {"projected": self.project_up(embedded.pixel)}

    def embedding_tables(self) -> Tensor:
        """Unit-length codes of each codebook, (C, vocab_size, W / C), fp32; only with multi-codebook quantization."""
        if not isinstance(self.quantizer, MultiCodebookQuantizer):
            raise ValueError(f"quantizer {self.config.quantizer!r} has no table for each code; multi_codebook has")
        return F.normalize(self.quantizer.codebooks_CKc, dim=-1)

    def features(self, pixel_values: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> features (B,N,W) before quantization, fp32."""
        encoder, project_down = encoding_part(self.encoder), encoding_part(self.project_down)
        check_patches(pixel_values, self.config.patch_size)
        pixel_values = pixel_values.to(encoder.to_grid.weight.dtype)
        if self.training:
            return project_down(encoder(pixel_values))
        # At inference, ids must not depend on the precision the caller has set; to encode in bf16, cast the model.
        with exact_fp32(pixel_values.device):
            return project_down(encoder(pixel_values))

    def image_embedding(self, pixel_values: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> (B,E), l2-normalised, through the quantizer."""
        return self(pixel_values, reconstruct=False).image_embedding

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text ids (B,T) -> (B,E), l2-normalised."""
        if self.text_model is None:
            raise ValueError("this model has no text tower")
        embedded = self.text_model(input_ids=input_ids, attention_mask=attention_mask).text_embeds
        return F.normalize(embedded.float(), dim=-1)

    def forward(self, pixel_values: Tensor, reconstruct: bool = True) -> UniTokOutput:
        """Image to tokens to image and to the shared space, with gradients.

        Args:
            pixel_values: (B,3,H,W) in [-1,1].
            reconstruct: False skips the decoder.
        """
        features = self.features(pixel_values)
        assert self.image_head is not None
        if self.quantizer is None:
            quantized = Quantized(features, features.new_empty((*features.shape[:2], 0), dtype=torch.int64), {})
        else:
            quantized = self.quantizer(features)
        tokens = self.project_up(quantized.codes)
        return UniTokOutput(
            reconstruction=self._draw(tokens, self.config.grid(*pixel_values.shape[-2:])) if reconstruct else None,
            ids=quantized.ids,
            losses=quantized.losses,
            features=features,
            image_embedding=self.image_head(tokens),
        )

    def settings(self) -> dict[str, Any]:
        """See the protocol ``Tokenizer``."""
        return settings(self.config, self.num_tokens)

    def card_facts(self) -> CardFacts:
        """See the protocol ``Tokenizer``."""
        return card_facts(self.config)

    def load_processor(self, place: str | os.PathLike[str]) -> TokenizerImageProcessor | UniTokProcessor:
        """The processor of images and texts from ``place`` if there is a text tower, otherwise of images only.

        Raises:
            Exception: the text tokenizer is missing or damaged; the tokenizers library raises nothing more specific.
        """
        if self.config.text_config is None:
            return TokenizerImageProcessor(size=self.config.image_size)
        return UniTokProcessor.from_pretrained(place)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            init.normal_(module.weight, std=fan_out**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, UniTokModel) and module.config.encoder:
            init.constant_(module.logit_scale, math.log(INITIAL_SCALE))
        else:
            super()._init_weights(module)

    def _draw(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.decoder(tokens.to(self.decoder.norm.weight.dtype), grid)

    def _lookup(self, ids: Tensor, *, check_range: bool = True) -> Tensor:
        """Check ids (B,N,C) and look up their codes (B,N,W)."""
        quantizer = self._discrete()
        ids = check_ids(ids, self.vocab_size, self.codes_per_token, check_range=check_range)
        return quantizer.lookup(ids if self.config.quantizer in SEVERAL_CODES_PER_TOKEN else ids[..., 0])

    def _discrete(self) -> TokenQuantizer:
        if self.quantizer is None:
            raise ValueError(
                "this model has continuous features (quantizer none): there are no ids to encode or decode"
            )
        return self.quantizer


def _build_quantizer(config: UniTokConfig) -> TokenQuantizer | None:
    if config.quantizer == "none":
        return None
    return build_quantizer(
        config.quantizer, QuantizerSettings(config.codebook_size, config.width, codes_per_token=config.num_codebooks)
    )
