"""From the tokenizer's features to the language model's input embeddings (paper section 3.3, Table 7).

Shapes: P positions (any leading shape), d_s and d_p semantic and pixel channels, D channels of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semhitok.types import AdapterKind, Embedded


class MLP(nn.Module):
    """Two layers with a GELU between them: (...,d) -> (...,D). The paper does not give the hidden width; D is ours."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, width)
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(nn.functional.gelu(self.hidden(features.to(self.hidden.weight.dtype))))


class Adapter(nn.Module):
    """The four variants of Table 7.

    ``dual`` projects semantic and pixel features separately, each to half of the channels (the paper gives no widths; halves
    are ours), and concatenates them on the channel axis. ``single`` concatenates first and projects once. ``semantic`` and
    ``pixel`` use only one of the two.

    Args:
        kind: the variant.
        semantic_dim: d_s, or None for a tokenizer without semantic codes.
        pixel_dim: d_p.
        width: D.

    Raises:
        ValueError: the variant needs semantic features that the tokenizer does not have, or D is odd for ``dual``.
    """

    def __init__(self, kind: AdapterKind, *, semantic_dim: int | None, pixel_dim: int, width: int) -> None:
        super().__init__()
        if semantic_dim is None and kind in ("semantic", "dual"):
            raise ValueError(
                f"adapter {kind} needs semantic features, which this tokenizer does not have: use single or pixel"
            )
        if kind == "dual" and width % 2:
            raise ValueError(f"adapter dual gives half of the channels to each MLP, so they must be even, got {width}")
        self.kind: AdapterKind = kind
        self.semantic = MLP(semantic_dim, width // 2) if kind == "dual" and semantic_dim is not None else None
        self.pixel = MLP(pixel_dim, width // 2) if kind == "dual" else None
        dims = {"semantic": semantic_dim or 0, "pixel": pixel_dim, "single": (semantic_dim or 0) + pixel_dim}
        self.joint = MLP(dims[kind], width) if kind != "dual" else None

    def forward(self, embedded: Embedded) -> Tensor:
        """Features of ids -> (B,N,D)."""
        semantic, pixel = embedded.semantic, embedded.pixel
        if self.joint is None:
            assert self.semantic is not None
            assert self.pixel is not None
            assert semantic is not None
            return torch.cat([self.semantic(semantic), self.pixel(pixel)], dim=-1)
        if self.kind == "pixel" or semantic is None:
            return self.joint(pixel)
        return self.joint(semantic if self.kind == "semantic" else torch.cat([semantic, pixel], dim=-1))

    @torch.no_grad()
    def match_scale(self, embedded: Embedded, root_mean_square: Tensor, *, per_mlp: bool) -> None:
        """Rescale the last layers so that the outputs for these features have the given root mean square.

        Args:
            embedded: features of ids (B,N).
            root_mean_square: the scale to reach, a scalar.
            per_mlp: bring the channels of each MLP to this scale separately; otherwise one factor for all channels, which
                keeps the directions of the outputs.
        """
        output_BND, channels = self(embedded).float(), 0
        for layer in self.output_layers():
            own = slice(channels, channels + layer.out_features) if per_mlp else slice(None)
            channels += layer.out_features
            factor = root_mean_square / output_BND[..., own].square().mean().sqrt().clamp_min(1e-12)
            for parameter in (layer.weight, layer.bias):
                parameter.mul_(factor.to(parameter.dtype))

    def output_layers(self) -> list[nn.Linear]:
        """The last layer of each MLP, in the order of their channels."""
        return [mlp.out for mlp in (self.joint, self.semantic, self.pixel) if mlp is not None]
