"""Several codes at one position: a small transformer over the C codes, conditioned on the language model's hidden state.

The language model takes one step per token; inside that step the codes are predicted one after another (UniTok, arXiv
2502.20321, section 3.3; depth-wise prediction goes back to RQ-Transformer). UniTok publishes no sizes: two layers are ours.

Shapes: P positions, C codes, V ids of one code, D channels of the language model, W channels of this head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class CodeHead(nn.Module):
    """Hidden states (P,D) and codes (P,C) -> logits (P,C,V); code c is predicted from the hidden state and codes < c.

    Args:
        hidden_size: D.
        codes: C.
        vocab_size: V; each of the C codes has its own table and its own output layer.
        layers, width, heads: sizes of the transformer.
    """

    def __init__(self, *, hidden_size: int, codes: int, vocab_size: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.codes = codes
        self.project_in = nn.Linear(hidden_size, width)
        self.tables = nn.ModuleList(nn.Embedding(vocab_size, width) for _ in range(codes - 1))
        self.place = nn.Embedding(codes, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.ModuleList(nn.Linear(width, vocab_size, bias=False) for _ in range(codes))

    def forward(self, hidden_PD: Tensor, codes_PC: Tensor) -> Tensor:
        """All codes at once, for training: logits (P,C,V)."""
        mixed_PCW = self._mix(hidden_PD, codes_PC[:, : self.codes - 1])
        return torch.stack([out(mixed_PCW[:, place]) for place, out in enumerate(self.out)], dim=1)

    def loss(self, hidden_PD: Tensor, codes_PC: Tensor) -> Tensor:
        """Cross entropy of the C codes that follow each hidden state, in fp32: the mean over codes, summed over positions."""
        logits = rearrange(self(hidden_PD, codes_PC).float(), "p c v -> (p c) v")
        return F.cross_entropy(logits, rearrange(codes_PC, "p c -> (p c)"), reduction="sum") / self.codes

    def generate(self, hidden_PD: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Code by code: codes (P,C). ``choose`` turns logits (P,V) into ids (P)."""
        codes_PC = torch.empty(len(hidden_PD), 0, dtype=torch.long, device=hidden_PD.device)
        for out in self.out:
            chosen_P = choose(out(self._mix(hidden_PD, codes_PC)[:, -1]))
            codes_PC = torch.cat([codes_PC, chosen_P[:, None]], dim=1)
        return codes_PC

    def _mix(self, hidden_PD: Tensor, codes_PC: Tensor) -> Tensor:
        """The transformer's output for the hidden state and the codes so far, causally masked: (P,c+1,W) for codes (P,c)."""
        steps = [self.project_in(hidden_PD)]
        steps += [table(codes_PC[:, place]) for place, table in enumerate(self.tables) if place < codes_PC.shape[1]]
        x_PcW = torch.stack(steps, dim=1) + self.place.weight[: len(steps)]
        mask = nn.Transformer.generate_square_subsequent_mask(len(steps), device=x_PcW.device, dtype=x_PcW.dtype)
        return self.transformer(x_PcW, mask=mask, is_causal=True)
