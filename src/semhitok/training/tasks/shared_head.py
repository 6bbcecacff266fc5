"""Visual rows of a head that learn from each other while they are trained (not in the paper).

The head has one row for each of thousands of visual ids, and each learns from its own labels alone. Here a row is a sum,

    row = own + of its semantic code + codes W        own, W: learned; codes: the id's vectors in the codebooks, standardised

so that ids with the same semantic code, or with similar codes, learn together. The sum is an ordinary row, and is exported as such.

Shapes: S visual ids, K semantic codes, E channels of the codebooks' vectors, D channels of the model, V rows of the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from semhitok.mllm import SemHiTokForConditionalGeneration

_OF_SUM = "lm_head.parametrizations.weight."


class SharedRows(nn.Module):
    """Adds to the rows of visual ids what they share, zero at first.

    Args:
        begin: the first visual id.
        codes_SE: vectors of the ids in the codebooks, standardised.
        groups_S: the semantic code of each id, in [0,K); None without semantic codes.
        width: D.
    """

    codes_SE: Tensor
    groups_S: Tensor | None

    def __init__(self, begin: int, codes_SE: Tensor, groups_S: Tensor | None, width: int) -> None:
        super().__init__()
        self.begin = begin
        self.register_buffer("codes_SE", codes_SE, persistent=False)
        self.register_buffer("groups_S", groups_S, persistent=False)
        self.of_codes = nn.Parameter(torch.zeros(codes_SE.shape[1], width))
        self.of_group: nn.Parameter | None = None
        if groups_S is not None:
            self.of_group = nn.Parameter(torch.zeros(int(groups_S.max()) + 1, width))

    def forward(self, own_VD: Tensor) -> Tensor:
        """Own rows -> the rows of the head, (V,D)."""
        shared_SD = self.codes_SE @ self.of_codes
        if self.of_group is not None:
            shared_SD = shared_SD + self.of_group[self.groups_S]
        end = self.begin + len(shared_SD)
        return torch.cat([own_VD[: self.begin], own_VD[self.begin : end] + shared_SD, own_VD[end:]])


@torch.no_grad()
def share_head(model: SemHiTokForConditionalGeneration) -> None:
    """Let the visual rows of the head share, until ``merged_head`` makes ordinary rows of them; the rows do not change yet.

    Raises:
        ValueError: the head has no rows of visual ids.
    """
    if model.code_head is not None:
        raise ValueError("with several codes per token the head has no rows of visual ids that could share")
    vocabulary, weight = model.vocabulary, model.lm_head.weight
    ids_1S = torch.arange(vocabulary.visual_size, device=model.image_tokenizer.device)[None]
    embedded = model.image_tokenizer.embed(ids_1S)
    parts = [part[0].float() for part in (embedded.semantic, embedded.pixel) if part is not None]
    # Each channel has mean 0 and variance 1 / E.
    codes_SE = torch.cat([(part - part.mean(0)) / part.std(0).clamp_min(1e-6) for part in parts], dim=1)
    codes_SE = codes_SE / codes_SE.shape[1] ** 0.5
    groups_S = None if embedded.semantic is None else parts[0].unique(dim=0, return_inverse=True)[1]
    rows = SharedRows(vocabulary.visual_begin, codes_SE, groups_S, weight.shape[1]).to(weight.device)
    parametrize.register_parametrization(model.lm_head, "weight", rows)


def merged_head(
    model: SemHiTokForConditionalGeneration, tensors: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a model's state dict with ordinary rows in place of shared ones; the model itself is left unchanged."""
    for name, tensor in tensors:
        if not name.startswith(_OF_SUM):
            yield name, tensor
        elif name == _OF_SUM + "original":
            yield "lm_head.weight", model.lm_head.weight.detach()
