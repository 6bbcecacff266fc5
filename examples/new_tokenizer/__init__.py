"""A tokenizer in one folder: each patch becomes one of a few shades of grey.

It is meant to be read, not used. ``docs/architecture.md`` shows the line that registers it; a test registers it, trains it
and runs the commands with it.

Shapes: B images, N patches, K shades.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import PreTrainedConfig

from semhitok.tokenizers.base import TokenizerModel
from semhitok.tokenizers.checks import check_grid, check_ids
from semhitok.tokenizers.protocol import CardFacts, Rounding
from semhitok.tokenizers.registry import TokenizerKind
from semhitok.tokenizers.settings import code_settings
from semhitok.tokenizers.token_grid import TokenGrid
from semhitok.types import Embedded, Encoded


class GreyConfig(PreTrainedConfig, TokenGrid):
    """``levels`` shades, one for each patch of ``patch_size`` pixels."""

    model_type = "grey"

    def __init__(
        self, image_size: int = 16, patch_size: int = 4, levels: int = 8, encoder: bool = True, **kwargs: Any
    ) -> None:
        self.image_size, self.patch_size, self.levels, self.encoder = image_size, patch_size, levels, encoder
        self.stages = list(kwargs.pop("stages", []))
        self.provenance = dict(kwargs.pop("provenance", {}))
        super().__init__(**kwargs)

    vocab_size = property(lambda self: self.levels)
    codes_per_token = 1


class GreyModel(TokenizerModel):
    """Encodes a patch as the shade nearest to its mean; only the decoder uses ``gain``."""

    config: GreyConfig
    config_class = GreyConfig
    id_tensors = ("shades_K",)
    rounding = Rounding(("gain",), "gain in bfloat16")
    semantic_codebook_size = None
    has_text_tower = False

    def __init__(self, config: GreyConfig) -> None:
        super().__init__(config)
        self.shades_K = nn.Parameter(torch.linspace(-1, 1, config.levels))
        self.gain = nn.Parameter(torch.ones(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Encoded:
        side = self.config.patch_size
        means_BN = rearrange(pixel_values, "b c (r p) (s q) -> b (r s) (c p q)", p=side, q=side).mean(dim=-1)
        ids_BN = (means_BN[..., None] - self.shades_K).abs().argmin(dim=-1)
        return Encoded(ids=ids_BN, grid=self.config.grid(*pixel_values.shape[-2:]))

    @torch.no_grad()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        return self.draw(check_ids(ids, self.vocab_size), check_grid(ids, grid)).clamp(-1, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Reconstruct images (B,3,H,W), with gradients for the shades and the gain."""
        encoded = self.encode(pixel_values)
        return self.draw(encoded.ids, encoded.grid)

    def draw(self, ids: Tensor, grid: tuple[int, int]) -> Tensor:
        """Ids (B,N) -> (B,3,H,W), not clamped."""
        side = self.config.patch_size
        return repeat(self.shades_K[ids] * self.gain, "b (r s) -> b 3 (r p) (s q)", r=grid[0], p=side, q=side)

    def embed(self, ids: Tensor) -> Embedded:
        return Embedded(semantic=None, pixel=self.shades_K[ids][..., None])

    def settings(self) -> dict[str, Any]:
        return {"levels": self.config.levels, **code_settings(self.num_tokens, 1, self.vocab_size)}

    def card_facts(self) -> CardFacts:
        rows = [["levels", f"{self.config.levels}"]]
        return CardFacts(name="Grey", paper="no paper", rows=rows, limits=["It knows no colour."])


TOKENIZER = TokenizerKind(GreyConfig, GreyModel, stages=("shades",))
