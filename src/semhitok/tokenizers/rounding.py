"""Weights that bfloat16 holds exactly: two bytes each on disk, and the ids that later stages were trained with.

Rounding a finished tokenizer changes some of its ids; rounding a stage's weights before the next one begins does not, since all that
is trained later, a language model included, has seen only the rounded ones. Codebooks and their statistics stay in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

CODEBOOKS = "quantizer."
"""Part of the names of codebooks and their statistics."""


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round everything but codebooks to bfloat16, in place and in its own dtype."""
    for tensor in _weights(model):
        tensor.copy_(tensor.bfloat16())


def is_rounded(model: nn.Module) -> bool:
    """Whether the frozen teacher and everything else but codebooks equals its bfloat16."""
    return all(torch.equal(tensor, tensor.bfloat16().to(tensor.dtype)) for tensor in _weights(model))


def _weights(model: nn.Module) -> Iterator[Tensor]:
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and CODEBOOKS not in name:
            yield tensor
