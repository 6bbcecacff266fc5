"""The one loss: the next token, whether text or image (paper section 3.3).

Shapes: B sequences, L positions, P visual positions, C codes per token, D channels, V ids (of one code).
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.mllm.code_head import CodeHead
from semhitok.mllm.vocabulary import Vocabulary

IGNORED = -100


def next_token_loss(
    vocabulary: Vocabulary,
    code_head: CodeHead | None,
    logits_BLV: Tensor,
    hidden_BLD: Tensor,
    labels_BL: Tensor,
    visual_codes_BLC: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The summed loss of text and image, and the number of positions in it; with C codes the code head gives the image's."""
    if code_head is None:
        return token_loss(logits_BLV, labels_BL)
    assert visual_codes_BLC is not None, "images have been embedded by their codes"
    visual_BL = vocabulary.is_visual(labels_BL)
    text, texts = token_loss(logits_BLV, labels_BL.masked_fill(visual_BL, IGNORED))
    following_BL = visual_BL[:, 1:]
    image = code_loss(code_head, hidden_BLD[:, :-1][following_BL], visual_codes_BLC[:, 1:][following_BL])
    return text + image, texts + following_BL.sum()


def token_loss(logits_BLV: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each position's successor, in fp32: its sum, and the number of labels that are not -100."""
    targets = labels_BL[:, 1:]
    losses = F.cross_entropy(
        rearrange(logits_BLV[:, :-1].float(), "b l v -> (b l) v"),
        rearrange(targets, "b l -> (b l)"),
        ignore_index=IGNORED,
        reduction="sum",
    )
    return losses, (targets != IGNORED).sum()


def code_loss(code_head: CodeHead, hidden_PD: Tensor, codes_PC: Tensor) -> Tensor:
    """Cross entropy of the C codes that follow each hidden state: the mean over codes, summed over positions."""
    logits = rearrange(code_head(hidden_PD, codes_PC).float(), "p c v -> (p c) v")
    return F.cross_entropy(logits, rearrange(codes_PC, "p c -> (p c)"), reduction="sum") / codes_PC.shape[1]
