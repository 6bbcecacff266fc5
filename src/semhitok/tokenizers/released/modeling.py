"""A released VQ tokenizer under this package's protocol; the network is the class of transformers itself.

Shapes: B images, H x W pixels, h x w tokens, N = h w, D channels of a code.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import PreTrainedModel

from semhitok.nn.exact import exact_fp32
from semhitok.tokenizers.base import TokenizerModel
from semhitok.tokenizers.checks import check_grid, check_ids, check_patches, encoding_part
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.released.configuration import ReleasedTokenizerConfig
from semhitok.tokenizers.released.files import load_released
from semhitok.tokenizers.settings import code_settings
from semhitok.types import Embedded, Encoded

ENCODER_PARTS = ("encoder", "quant_conv")


class ReleasedTokenizerModel(TokenizerModel):
    """A ``JanusVQVAE``, ``ChameleonVQVAE`` or ``Emu3VQVAE``: ``encode``, ``decode`` and ``embed``; it is not trained here.

    Images are in [-1,1], and their sides multiples of the patch size. Codes are embedded as the decoder reads them. In eval mode ids are
    computed in true fp32 whatever autocast the caller has set.
    """

    config: ReleasedTokenizerConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = ReleasedTokenizerConfig
    encoder_side = tuple(f"vqvae.{part}." for part in ENCODER_PARTS)
    _keep_in_fp32_modules_strict = {f"vqvae.{part}" for part in (*ENCODER_PARTS, "quantize")}
    has_text_tower = False
    semantic_codebook_size = None
    id_tensors = (*encoder_side, "vqvae.quantize.")

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
            for part in ENCODER_PARTS:
                setattr(self.vqvae, part, None)
        self.post_init()

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
        encoding_part(self.vqvae.encoder)
        height, width = check_patches(pixel_values, self.config.patch_size)
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

    def _init_weights(self, module: Any) -> None:
        """The class of transformers has initialised its own."""
