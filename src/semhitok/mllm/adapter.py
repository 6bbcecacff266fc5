"""From the tokenizer's features to the language model's input embeddings (paper section 3.3, Table 7).

Shapes: P positions (any leading shape), d_s and d_p semantic and pixel channels, D channels of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semhitok.mllm.configuration import AdapterKind
from semhitok.types import Embedded


class MLP(nn.Module):
    """Two layers with GELU between them: (...,d) -> (...,D). The hidden width is not given in the paper; D is ours."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, width)
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(nn.functional.gelu(self.hidden(features.to(self.hidden.weight.dtype))))


class Adapter(nn.Module):
    """The four variants of Table 7.

    ``dual`` projects semantic and pixel features apart, half of the channels each (the paper gives no widths; halves are
    ours), and concatenates them on the channel axis. ``single`` concatenates first and projects once. ``semantic`` and
    ``pixel`` see one of the two.

    Args:
        kind: the variant.
        semantic_dim: d_s, or None for a tokenizer without semantic codes.
        pixel_dim: d_p.
        width: D.

    Raises:
        ValueError: if the variant needs semantic features that the tokenizer does not have, or D is odd for ``dual``.
    """

    def __init__(self, kind: AdapterKind, *, semantic_dim: int | None, pixel_dim: int, width: int) -> None:
        super().__init__()
        if semantic_dim is None and kind in ("semantic", "dual"):
            raise ValueError(
                f"adapter {kind} needs semantic features, which this tokenizer has not: use single or pixel"
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

    def output_layers(self) -> list[nn.Linear]:
        """The last layer of each MLP, in the order of their channels."""
        return [mlp.out for mlp in (self.joint, self.semantic, self.pixel) if mlp is not None]
