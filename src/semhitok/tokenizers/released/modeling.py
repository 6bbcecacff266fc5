"""A released VQ tokenizer under this package's protocol; the network is the class of transformers itself.

Shapes: B images, H x W pixels, h x w tokens, N = h w, D channels of a code.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import PreTrainedModel

from semhitok.nn.exact import exact_fp32
from semhitok.tokenizers.checkpoints import load_strictly
from semhitok.tokenizers.checks import check_grid, check_ids, check_pixel_values
from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.released.configuration import ReleasedTokenizerConfig
from semhitok.tokenizers.released.files import load_released
from semhitok.tokenizers.settings import code_settings
from semhitok.types import Embedded, Encoded

ENCODER_SIDE = ("encoder", "quant_conv")


class ReleasedTokenizerModel(PreTrainedModel):
    """A ``JanusVQVAE``, ``ChameleonVQVAE`` or ``Emu3VQVAE``: ``encode``, ``decode`` and ``embed``; it is not trained here.

    Images are in [-1,1], and their sides multiples of the patch size. Codes are embedded as the decoder reads them. In eval mode ids are
    computed in true fp32 whatever autocast the caller has set.
    """

    config: ReleasedTokenizerConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = ReleasedTokenizerConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # pyright: ignore[reportAssignmentType]
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = {f"vqvae.{part}" for part in (*ENCODER_SIDE, "quantize")}
    has_text_tower = False
    semantic_codebook_size = None
    id_tensors = tuple(f"vqvae.{part}." for part in (*ENCODER_SIDE, "quantize"))

    def __init__(self, config: ReleasedTokenizerConfig, vqvae: PreTrainedModel | None = None) -> None:
        """The network is built from the configuration unless it is passed in."""
        super().__init__(config)
        self.vqvae: Any = vqvae or config.kind.model_class(config.vqvae_config)
        for module in self.vqvae.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.num_batches_tracked = (
                    None  # an integer that only training reads, which a cast of the model would touch
                )
        if not config.encoder:
            for part in ENCODER_SIDE:
                setattr(self.vqvae, part, None)
            self._keys_to_ignore_on_load_unexpected = [rf"^vqvae\.{part}\." for part in ENCODER_SIDE]
        self.post_init()

    @property
    def vocab_size(self) -> int:
        """Number of codes."""
        return self.config.vocab_size

    @property
    def num_tokens(self) -> int:
        """Tokens of a square image of the default size."""
        return math.prod(self.config.grid(self.config.image_size, self.config.image_size))

    @property
    def codes_per_token(self) -> int:
        """1."""
        return 1

    @property
    def rounding(self) -> Rounding:
        """The decoder, if there is one."""
        if self.config.kind.draw is None:
            return Rounding((), "all in float32")
        return Rounding(("vqvae.decoder.",), "decoder in bfloat16")

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Encoded:
        """Images (B,3,H,W) in [-1,1] -> ids (B,N) and the grid (rows, columns).

        Raises:
            ValueError: the size of the images is invalid, or the model has no encoder side.
        """
        if not self.config.encoder:
            raise ValueError("this model was loaded without its encoder side (encoder=False) and cannot encode images")
        height, width = check_pixel_values(pixel_values)
        side = self.config.patch_size
        if height % side or width % side or not height or not width:
            raise ValueError(f"the sides of images must be multiples of {side} pixels, got {height}x{width}")
        with exact_fp32(pixel_values.device):
            ids = self.config.kind.encode(self.vqvae, pixel_values.float())
        return Encoded(ids=ids, grid=self.config.grid(height, width))

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Ids (B,N) -> images (B,3,H,W) clamped to [-1,1]. ``grid`` (rows, columns) defaults to a square one.

        Raises:
            ValueError: ids are out of range or of another shape, the grid does not have N tokens, or there is no decoder.
        """
        kind = self.config.kind
        if kind.draw is None:
            raise ValueError(
                f"{kind.name} cannot decode: {kind.model_class.__name__} of transformers has no decoder, so ids can only be "
                "encoded and embedded"
            )
        codes_BND = kind.lookup(self.vqvae, check_ids(ids, self.vocab_size))
        rows, _ = check_grid(ids, grid)
        codes_BDhw = rearrange(codes_BND, "b (h w) d -> b d h w", h=rows).contiguous()
        dtype = next(self.vqvae.decoder.parameters()).dtype
        return kind.draw(self.vqvae, codes_BDhw.to(dtype)).clamp(-1, 1)

    def embed(self, ids: Tensor) -> Embedded:
        """Ids (B,N) -> codes (B,N,D) as the decoder reads them, fp32, as ``pixel``."""
        return Embedded(semantic=None, pixel=self.config.kind.lookup(self.vqvae, check_ids(ids, self.vocab_size)))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Reconstructions (B,3,H,W) of images, clamped to [-1,1], without gradients."""
        encoded = self.encode(pixel_values)
        return self.decode(encoded.ids, encoded.grid)

    def settings(self) -> dict[str, Any]:
        """See the protocol ``Tokenizer``."""
        config = self.config
        return {
            "system": config.kind.name,
            "code_channels": config.vqvae_config.embed_dim,
            **code_settings(self.num_tokens, 1, self.vocab_size),
        }

    def card_facts(self) -> CardFacts:
        """See the protocol ``Tokenizer``."""
        config = self.config
        limits = [f"Made for {config.image_size} x {config.image_size} pixels."]
        if config.kind.draw is None:
            limits.append("It encodes and embeds, but cannot decode: transformers has no decoder for it.")
        return CardFacts(
            name=config.kind.name,
            paper=config.kind.paper,
            rows=[
                ["codes", f"{config.vocab_size:,} of {config.vqvae_config.embed_dim} channels"],
                ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
            ],
            limits=limits,
        )

    def load_processor(self, place: str | os.PathLike[str]) -> TokenizerImageProcessor:
        """The image processor of the default size, independent of the checkpoint."""
        return TokenizerImageProcessor(size=self.config.image_size)

    @classmethod
    def from_released(
        cls,
        place: str | os.PathLike[str],
        *,
        image_size: int | None = None,
        encoder: bool = True,
        **options: Any,
    ) -> ReleasedTokenizerModel:
        """Take the VQ-VAE from a checkpoint of its class, or of a whole Janus, Chameleon or Emu3.

        Args:
            place: a folder or a hub id.
            image_size, encoder: see ``ReleasedTokenizerConfig``.
            options: as in transformers, such as ``subfolder`` or ``revision``.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: as for ``from_pretrained``.
        """
        vqvae = load_released(place, **options)
        config = ReleasedTokenizerConfig(vqvae.config, image_size, encoder, provenance={"source": str(place)})
        return cls(config, vqvae).eval()

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ReleasedTokenizerModel:
        """Load what ``save_pretrained`` wrote, strictly; see ``from_released`` for checkpoints of others.

        ``encoder=False`` omits the encoder side. Other arguments are as in transformers.
        """
        load = super().from_pretrained
        return load_strictly(load, pretrained_model_name_or_path, ReleasedTokenizerConfig.model_type, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As in transformers, safetensors only; the image processor's configuration is written as well."""
        super().save_pretrained(save_directory, **kwargs)
        TokenizerImageProcessor(size=self.config.image_size).save_pretrained(Path(save_directory))

    def _init_weights(self, module: Any) -> None:
        """The class of transformers has initialised its own."""
