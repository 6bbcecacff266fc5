"""Images into the places that a text keeps for them.

Shapes: B sequences, L positions, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from semhitok.mllm.vocabulary import Vocabulary


def fill_images(
    vocabulary: Vocabulary,
    tokenizer: Any,
    input_ids: Tensor,
    pixel_values: Tensor | None,
    visual_codes: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """See ``SemHiTokForConditionalGeneration.fill_images``; ``tokenizer`` is the image tokenizer."""
    if vocabulary.codes_per_token > 1 and visual_codes is None:
        visual_codes = input_ids.new_zeros(*input_ids.shape, vocabulary.codes_per_token)
    empty_BL = input_ids == vocabulary.placeholder_id
    if pixel_values is None and not empty_BL.any():  # as in each step of generation
        return input_ids, visual_codes
    begins_BL = empty_BL & ~F.pad(empty_BL, (1, 0))[:, :-1]
    places, images = int(begins_BL.sum()), 0 if pixel_values is None else len(pixel_values)
    if int(empty_BL.sum()) != places * vocabulary.image_tokens:
        raise ValueError(
            f"{int(empty_BL.sum())} placeholder ids at {places} places, where an image has {vocabulary.image_tokens} tokens: "
            "the processor belongs to another tokenizer"
        )
    if places != images:
        raise ValueError(f"the text has places for {places} images, got {images}")
    if pixel_values is None:
        return input_ids, visual_codes
    ids = tokenizer.encode(pixel_values.to(tokenizer.device, tokenizer.dtype)).ids
    if ids.shape[1] != vocabulary.image_tokens:
        raise ValueError(f"images must give {vocabulary.image_tokens} tokens, these give {ids.shape[1]}")
    filled = input_ids.masked_scatter(empty_BL, vocabulary.visual_ids(ids))
    if visual_codes is not None:
        visual_codes = visual_codes.masked_scatter(empty_BL[..., None], ids)
    return filled, visual_codes
