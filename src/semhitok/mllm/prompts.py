"""Checks of prompts before generation.

Shapes: B sequences, L positions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from semhitok.mllm.legal_ids import GenerationMode
from semhitok.mllm.vocabulary import Vocabulary


def with_begin(
    vocabulary: Vocabulary, ids_BL: Tensor, attention_mask_BL: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The prompts with the image begin id at the end, appended if necessary.

    Raises:
        ValueError: the prompts are empty, one ends inside an image, or only some end with the image begin id.
    """
    if ids_BL.ndim != 2 or not ids_BL.shape[1]:
        raise ValueError(f"a prompt needs at least one token, got ids of shape {tuple(ids_BL.shape)}")
    if vocabulary.is_visual(ids_BL[:, -1]).any():
        raise ValueError("a prompt ends inside an image; to generate one it must end with text or the image begin id")
    ends_B = ids_BL[:, -1] == vocabulary.image_begin_id
    if ends_B.all():
        return ids_BL, attention_mask_BL
    if ends_B.any():
        raise ValueError(
            f"{int(ends_B.sum())} of {len(ends_B)} prompts end with the image begin id; all must, or none (pad on the left)"
        )
    mask = None if attention_mask_BL is None else F.pad(attention_mask_BL, (0, 1), value=1)
    return F.pad(ids_BL, (0, 1), value=vocabulary.image_begin_id), mask


def check_prompt(
    vocabulary: Vocabulary,
    ids_BL: Tensor,
    attention_mask_BL: Tensor | None,
    *,
    mode: GenerationMode,
    context_length: int,
) -> None:
    """Reject prompts that cannot be continued in this mode.

    Raises:
        ValueError: a prompt is empty, leaves no room in the context, has ids outside the vocabulary or visual ids outside an
            image, or ends inside an image although text is to follow.
    """
    if ids_BL.ndim != 2 or not ids_BL.shape[1]:
        raise ValueError(f"a prompt needs at least one token, got ids of shape {tuple(ids_BL.shape)}")
    if attention_mask_BL is not None and not attention_mask_BL.any(dim=1).all():
        raise ValueError("a prompt needs at least one token, this batch has a row of padding only")
    room = vocabulary.image_tokens if mode == "image" else 1
    if ids_BL.shape[1] + room > context_length:
        raise ValueError(
            f"a prompt of {ids_BL.shape[1]} tokens with {room} to follow is longer than the context of {context_length}"
        )
    vocabulary.check_spans(ids_BL)
    last_B = ids_BL[:, -1]
    inside_B = vocabulary.is_visual(last_B) | (last_B == vocabulary.image_begin_id)
    if mode == "text" and inside_B.any():
        raise ValueError(
            "a prompt ends inside an image, which generation_mode text cannot continue; use interleaved or image"
        )


def check_guidance(scale: float | None) -> None:
    """Reject a guidance scale of 0 or less; 1 and None mean no guidance."""
    if scale is not None and not scale > 0:
        raise ValueError(f"guidance must be above 0 (1 is none), got {scale}")
