"""Released VQ-VAEs of transformers at tiny random size, 8 x 8 tokens of an image of 32 px, and the adapter of one."""

from __future__ import annotations

from typing import Any

import torch
from tests.tiny import pixels
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig, Emu3VQVAE, Emu3VQVAEConfig, JanusVQVAE, JanusVQVAEConfig

from semhitok.tokenizers.released import ReleasedTokenizerConfig, ReleasedTokenizerModel

SMALL: dict[str, Any] = {"base_channels": 32, "channel_multiplier": [1, 1, 2], "num_res_blocks": 1, "embed_dim": 4}
CHAMELEON = ChameleonVQVAEConfig(**SMALL, latent_channels=8, num_embeddings=20, resolution=32)


def vqvae(kind: str) -> Any:
    """The class of transformers at tiny size, 8 x 8 tokens of an image of 32 px, with codes that images use."""
    torch.manual_seed(0)
    if kind == "janus":
        config = JanusVQVAEConfig(**SMALL, latent_channels=8, num_embeddings=20, num_patches=8)
        model: Any = JanusVQVAE(config)
    elif kind == "chameleon":
        model = ChameleonVQVAE(CHAMELEON)
    else:
        config = Emu3VQVAEConfig(
            **SMALL,
            latent_channels=4,
            codebook_size=20,
            temporal_downsample_factor=2,
            attn_resolutions=[2],
            hidden_size=64,
        )
        model = Emu3VQVAE(config)
    seen: list[torch.Tensor] = []
    hook = model.quant_conv.register_forward_hook(lambda module, given, found: seen.append(found.movedim(1, -1)))
    images = pixels(4, seed=9)
    with torch.no_grad():
        model.eval().encode(images, *([torch.tensor([[32, 32]] * 4)] if kind == "emu3" else []), return_dict=True)
        hook.remove()
        features = seen[0].flatten(0, -2)
        model.quantize.embedding.weight.copy_(features[torch.randperm(len(features))[:20]])
    return model


def tiny_released() -> ReleasedTokenizerModel:
    """The adapter of Janus's."""
    model = vqvae("janus")
    return ReleasedTokenizerModel(ReleasedTokenizerConfig(model.config), model).eval()
