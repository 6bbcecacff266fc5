"""The loss of next text and image tokens from the logits of all positions.

Training computes it from hidden states instead (``losses/large_head.py``), without holding all logits.

Shapes: B sequences, L positions, C codes per token, D channels, V ids of the head.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.data.packing import IGNORED
from semhitok.mllm.code_head import CodeHead
from semhitok.mllm.vocabulary import Vocabulary


def next_token_loss(
    logits_BLV: Tensor,
    hidden_BLD: Tensor,
    labels_BL: Tensor,
    visual_codes_BLC: Tensor | None,
    vocabulary: Vocabulary,
    code_head: CodeHead | None,
) -> tuple[Tensor, Tensor]:
    """The summed cross entropy of next text and image tokens, in fp32, and the number of labels.

    With a code head, a visual position counts as the mean of the losses of its codes.
    """
    count = (labels_BL[:, 1:] != IGNORED).sum()
    if code_head is None:
        return _token_loss(logits_BLV, labels_BL), count
    assert visual_codes_BLC is not None, "images have been embedded by their codes"
    visual_BL = vocabulary.is_visual(labels_BL)
    text = _token_loss(logits_BLV, labels_BL.masked_fill(visual_BL, IGNORED))
    next_BL = visual_BL[:, 1:]
    image = code_head.loss(hidden_BLD[:, :-1][next_BL], visual_codes_BLC[:, 1:][next_BL])
    return text + image, count


def _token_loss(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Summed cross entropy of the next tokens, in fp32."""
    return F.cross_entropy(
        rearrange(logits_BLV[:, :-1].float(), "b l v -> (b l) v"),
        rearrange(labels_BL[:, 1:], "b l -> (b l)"),
        ignore_index=IGNORED,
        reduction="sum",
    )
