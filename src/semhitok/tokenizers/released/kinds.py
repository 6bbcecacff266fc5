"""What differs between the released tokenizers: how each class of transformers is called, and what its configuration says.

Shapes: B images, H x W pixels, h x w tokens, N = h w, D channels of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig, Emu3VQVAE, Emu3VQVAEConfig, JanusVQVAE, JanusVQVAEConfig

EMU3_IMAGE_SIZE = 512
"""Emu3's configuration names no size of images; its language model takes areas of about this side."""


@dataclass(frozen=True)
class ReleasedKind:
    """One released tokenizer.

    Attributes:
        name, paper: for model cards.
        config_class, model_class: of transformers.
        image_size: configuration -> side in pixels that it was made for.
        vocab_size: configuration -> number of codes.
        encode: model, (B,3,H,W) in [-1,1] -> ids (B,N).
        lookup: model, ids (B,N) -> codes (B,N,D) as the decoder reads them.
        draw: model, codes (B,D,h,w) -> (B,3,H,W); None if transformers has no decoder.
    """

    name: str
    paper: str
    config_class: Any
    model_class: Any
    image_size: Callable[[Any], int]
    vocab_size: Callable[[Any], int]
    encode: Callable[[Any, Tensor], Tensor]
    lookup: Callable[[Any, Tensor], Tensor]
    draw: Callable[[Any, Tensor], Tensor] | None


def patch_size(config: Any) -> int:
    """Side of a token in pixels."""
    return 2 ** (len(config.channel_multiplier) - 1)


def _encode_image(model: Any, pixel_values: Tensor) -> Tensor:
    return model.encode(pixel_values, return_dict=True).image_tokens.view(len(pixel_values), -1)


def _encode_video_of_one_image(model: Any, pixel_values: Tensor) -> Tensor:
    """Emu3's encoder sees an image as a short video that repeats it, and returns one code per place."""
    sizes = torch.tensor([pixel_values.shape[-2:]] * len(pixel_values))
    return torch.stack(model.encode(pixel_values, sizes, return_dict=True).image_tokens).flatten(1)


def _codes(model: Any, ids: Tensor) -> Tensor:
    return model.quantize.embedding(ids)


def _codes_of_length_one(model: Any, ids: Tensor) -> Tensor:
    return normalize(_codes(model, ids), dim=-1)


def _draw_image(model: Any, codes_BDhw: Tensor) -> Tensor:
    return model.decoder(model.post_quant_conv(codes_BDhw))


def _draw_first_frame(model: Any, codes_BDhw: Tensor) -> Tensor:
    """The first frame of the short video that Emu3's decoder makes of one image's codes."""
    codes_BD1hw = codes_BDhw[:, :, None]
    read = model.post_quant_conv(codes_BD1hw).transpose(1, 2)
    frames = model.decoder(read, codes_BD1hw.transpose(1, 2))
    side = model.spatial_scale_factor
    size = (codes_BDhw.shape[2] * side, codes_BDhw.shape[3] * side)
    return frames.reshape(len(codes_BDhw), -1, model.config.out_channels, *size)[:, 0]


KINDS: dict[str, ReleasedKind] = {
    "janus_vqgan": ReleasedKind(
        name="LlamaGen VQ, as in Janus",
        paper="arXiv 2406.06525, 2410.13848",
        config_class=JanusVQVAEConfig,
        model_class=JanusVQVAE,
        image_size=lambda config: config.num_patches * patch_size(config),
        vocab_size=lambda config: config.num_embeddings,
        encode=_encode_image,
        lookup=_codes_of_length_one,
        draw=_draw_image,
    ),
    "chameleon_vqgan": ReleasedKind(
        name="Chameleon VQ",
        paper="arXiv 2405.09818",
        config_class=ChameleonVQVAEConfig,
        model_class=ChameleonVQVAE,
        image_size=lambda config: config.resolution,
        vocab_size=lambda config: config.num_embeddings,
        encode=_encode_image,
        lookup=_codes,
        draw=None,
    ),
    "emu3_vqgan": ReleasedKind(
        name="Emu3 VQ",
        paper="arXiv 2409.18869",
        config_class=Emu3VQVAEConfig,
        model_class=Emu3VQVAE,
        image_size=lambda config: EMU3_IMAGE_SIZE,
        vocab_size=lambda config: config.codebook_size,
        encode=_encode_video_of_one_image,
        lookup=_codes,
        draw=_draw_first_frame,
    ),
}
"""By the ``model_type`` of the class's configuration."""
