"""Ids of text and images as input embeddings of the language model.

    text id    -> the language model's own table
    control id -> a row of its own
    visual id  -> features of the image tokenizer -> adapter

Shapes: B sequences, L positions, P visual positions, C codes per token, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from semhitok.mllm.modeling import SemHiTokForConditionalGeneration


def embed_ids(model: SemHiTokForConditionalGeneration, input_ids: Tensor, visual_codes: Tensor | None = None) -> Tensor:
    """See ``SemHiTokForConditionalGeneration.embed``."""
    # In training every rank uses table, controls and adapter in every step, whatever its ids. Elsewhere, above all in the
    # steps of generation, nothing is computed for ids that are not there.
    if not (model.training or torch.is_grad_enabled()) and input_ids.numel():
        vocabulary = model.vocabulary
        table = model.get_input_embeddings()
        lowest, highest = (int(each) for each in input_ids.aminmax())
        if highest < vocabulary.text_size:
            return table(input_ids)
        if vocabulary.visual_begin <= lowest and highest < vocabulary.visual_end:
            embedded = model.image_tokenizer.embed(_tokenizer_ids(model, input_ids, visual_codes))
            return model.adapter(embedded).to(table.weight.dtype)
    return _embed_all_kinds(model, input_ids, visual_codes)


def _embed_all_kinds(model: SemHiTokForConditionalGeneration, input_ids: Tensor, visual_codes: Tensor | None) -> Tensor:
    vocabulary = model.vocabulary
    visual_BL = vocabulary.is_visual(input_ids)
    embeds_BLD = model.get_input_embeddings()(input_ids.masked_fill(input_ids >= vocabulary.text_size, 0))
    if model.controls is not None:
        rows_BLD = model.controls((input_ids - vocabulary.visual_end).clamp(0, vocabulary.controls - 1))
        embeds_BLD = torch.where(vocabulary.is_control(input_ids)[..., None], rows_BLD, embeds_BLD)
    if visual_codes is None and vocabulary.codes_per_token > 1 and not visual_BL.any():
        visual_codes = input_ids.new_zeros(*input_ids.shape, vocabulary.codes_per_token)
    visual_PD = model.embed_visual(_tokenizer_ids(model, input_ids, visual_codes)[visual_BL])
    return embeds_BLD.masked_scatter(visual_BL[..., None], visual_PD.to(embeds_BLD.dtype))


def _tokenizer_ids(model: SemHiTokForConditionalGeneration, input_ids: Tensor, visual_codes: Tensor | None) -> Tensor:
    """Ids of the image tokenizer, (B,L) or (B,L,C); those at other positions mean nothing."""
    vocabulary = model.vocabulary
    if vocabulary.codes_per_token == 1:
        return vocabulary.tokenizer_ids(input_ids)
    if visual_codes is None:
        raise ValueError(
            f"visual positions carry {vocabulary.codes_per_token} codes with this tokenizer: pass visual_codes"
        )
    return visual_codes
