"""Image generation token by token, with one pass per step over conditional and unconditional prompts.

Only visual rows of the head are computed. Guidance g: logits = u + g (c - u) with conditional logits c and unconditional logits
u. ``generate`` of transformers normalises both first, which shifts all logits of a row equally and does not change the choice.
The unconditional prompt is only the image begin id, as in training, where the text is dropped with probability 0.1 (paper
section 4.1).

Shapes: B prompts, R rows of the pass (B, or 2B with guidance), L positions, P visual positions, N tokens of one image, C codes
per token, D channels, V ids of one code.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from semhitok.mllm.code_head import CodeHead
from semhitok.mllm.compiled_steps import CompiledSteps
from semhitok.mllm.configuration import SemHiTokMLLMConfig
from semhitok.mllm.prompts import check_guidance, check_prompt, with_begin
from semhitok.mllm.sampling import Sampling
from semhitok.mllm.vocabulary import Vocabulary


class ImageTextModel(Protocol):
    """The interface of models for generation; see ``SemHiTokForConditionalGeneration``."""

    config: SemHiTokMLLMConfig
    vocabulary: Vocabulary
    image_tokenizer: Any
    code_head: CodeHead | None

    @property
    def device(self) -> torch.device: ...

    def fill_images(
        self, input_ids: Tensor, pixel_values: Tensor | None, visual_codes: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]: ...

    def embed_visual(self, tokenizer_ids: Tensor, index: Tensor | int | None = None) -> Tensor: ...

    def body(
        self,
        input_ids: Tensor | None = None,
        visual_codes: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast: ...

    def head_rows(self, begin: int, end: int) -> Tensor: ...


@torch.no_grad()
def stream_tokens(
    model: ImageTextModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    guidance: float = 1.0,
    negative_ids: Tensor | None = None,
    negative_attention_mask: Tensor | None = None,
    sampling: Sampling | None = None,
    pixel_values: Tensor | None = None,
    visual_codes: Tensor | None = None,
    compiled: CompiledSteps | None = None,
) -> Iterator[Tensor]:
    """The ids of one image for each prompt, token by token.

    Args:
        model: the unified model.
        input_ids: (B,L) prompts, padded on the left; the image begin id is appended if they do not end with it.
        attention_mask: (B,L), 0 at padding.
        guidance: g above 0; 1 disables guidance and halves the cost.
        negative_ids, negative_attention_mask: (B,L') or (1,L'), replacing the unconditional prompt.
        sampling: see ``Sampling``; by default at temperature 1 with the model's own ``image_top_k``.
        pixel_values: (I,3,H,W) images of the prompts, see ``fill_images``.
        visual_codes: (B,L,C) codes of images in the prompts that are already ids, if C > 1.
        compiled: run the pass of each token compiled, see ``CompiledSteps``.

    Returns:
        N tensors, (B) or (B,C), ids of the image tokenizer.

    Raises:
        ValueError: guidance <= 0, or ``check_prompt`` rejects a prompt; raised before the first token.
    """
    check_guidance(guidance)
    input_ids, visual_codes = model.fill_images(input_ids, pixel_values, visual_codes)
    prompts = _Prompts.of(model, input_ids, attention_mask, visual_codes)
    if guidance != 1.0:
        if negative_ids is None:
            negative_ids = input_ids.new_full((1, 1), model.vocabulary.image_begin_id)
        if len(negative_ids) not in (1, len(input_ids)):
            raise ValueError(f"negative_ids must hold 1 or {len(input_ids)} prompts, got {len(negative_ids)}")
        prompts = prompts.above(_Prompts.of(model, negative_ids, negative_attention_mask, None))
    advance = _growing(model, prompts) if compiled is None else _of_fixed_size(model, prompts, compiled)
    return _steps(model, advance, guidance, sampling or Sampling(top_k=model.config.image_top_k))


@dataclass(frozen=True)
class _Prompts:
    """Prompts that end with the image begin id.

    Attributes:
        ids_RL: padded on the left.
        mask_RL: 0 at padding.
        codes_RLC: codes at visual positions if C > 1; otherwise unused zeros.
    """

    ids_RL: Tensor
    mask_RL: Tensor
    codes_RLC: Tensor

    @classmethod
    def of(cls, model: ImageTextModel, ids_BL: Tensor, mask_BL: Tensor | None, codes_BLC: Tensor | None) -> _Prompts:
        if codes_BLC is None:
            codes_BLC = ids_BL.new_zeros(*ids_BL.shape, model.vocabulary.codes_per_token)
        mask_BL = torch.ones_like(ids_BL) if mask_BL is None else mask_BL
        ids_RL, mask_RL = with_begin(model.vocabulary, ids_BL, mask_BL)
        check_prompt(model.vocabulary, ids_RL, mask_RL, mode="image", context_length=model.config.context_length)
        assert mask_RL is not None
        return cls(ids_RL, mask_RL, F.pad(codes_BLC, (0, 0, 0, ids_RL.shape[1] - ids_BL.shape[1])))

    def above(self, other: _Prompts) -> _Prompts:
        """These prompts followed by the others, which are repeated to the same number if there is only one."""
        copies = len(self.ids_RL) // len(other.ids_RL)
        length = max(self.ids_RL.shape[1], other.ids_RL.shape[1])

        def stacked(upper: Tensor, lower: Tensor) -> Tensor:
            lower = repeat(lower, "r ... -> (r copies) ...", copies=copies)
            padded = [each.new_zeros(len(each), length, *each.shape[2:]) for each in (upper, lower)]
            for target, each in zip(padded, (upper, lower), strict=True):
                target[:, length - each.shape[1] :] = each
            return torch.cat(padded)

        return _Prompts(
            stacked(self.ids_RL, other.ids_RL),
            stacked(self.mask_RL, other.mask_RL),
            stacked(self.codes_RLC, other.codes_RLC),
        )


Advance = Generator[Tensor, Tensor, None]
"""Yields hidden states (R,D) after the prompts, and after each token whose ids, (R) or (R,C), are sent."""


@torch.no_grad()
def _steps(model: ImageTextModel, advance: Advance, guidance: float, sampling: Sampling) -> Iterator[Tensor]:
    count, codes = model.vocabulary.image_tokens, model.vocabulary.codes_per_token
    copies = 1 if guidance == 1.0 else 2
    with closing(advance):
        hidden_RD = next(advance)
        for step in range(count):
            chosen_R = _next_token(model, hidden_RD, step * codes, guidance, sampling)
            yield chosen_R[: len(chosen_R) // copies]
            if step < count - 1:
                hidden_RD = advance.send(chosen_R)


def _growing(model: ImageTextModel, prompts: _Prompts) -> Advance:
    """With a cache that grows by each token."""
    mask_RL = prompts.mask_RL
    padded = not bool(mask_RL.all())
    places_RL = (mask_RL.cumsum(dim=1) - 1).clamp_min(0)
    outputs = model.body(
        prompts.ids_RL,
        prompts.codes_RLC,
        attention_mask=mask_RL if padded else None,
        position_ids=places_RL,
        use_cache=True,
    )
    for index in itertools.count():
        assert outputs.last_hidden_state is not None
        chosen_R = yield outputs.last_hidden_state[:, -1]
        mask_RL, places_RL = F.pad(mask_RL, (0, 1), value=1), places_RL[:, -1:] + 1
        outputs = model.body(
            inputs_embeds=rearrange(model.embed_visual(chosen_R, index), "r d -> r 1 d"),
            attention_mask=mask_RL if padded else None,
            position_ids=places_RL,
            past_key_values=outputs.past_key_values,
            use_cache=True,
        )


def _of_fixed_size(model: ImageTextModel, prompts: _Prompts, compiled: CompiledSteps) -> Advance:
    """With a cache of fixed length; the prompts are not compiled."""
    rows, length = prompts.ids_RL.shape
    with compiled.cache(rows, length + model.vocabulary.image_tokens) as (cache, size):
        mask_RM = F.pad(prompts.mask_RL, (0, size - length), value=1)  # nothing sees what comes later
        places_RL = (prompts.mask_RL.cumsum(dim=1) - 1).clamp_min(0)
        options = {"attention_mask": mask_RM, "position_ids": places_RL, "past_key_values": cache, "use_cache": True}
        hidden = model.body(prompts.ids_RL, prompts.codes_RLC, **options).last_hidden_state
        assert hidden is not None
        places_R1 = places_RL[:, -1:]
        for index in itertools.count():
            chosen_R = yield hidden[:, -1]
            places_R1 = places_R1 + 1
            hidden = compiled.advance(model.embed_visual(chosen_R, index)[:, None], mask_RM, places_R1, cache)


def _next_token(
    model: ImageTextModel, hidden_RD: Tensor, first_position: int, guidance: float, sampling: Sampling
) -> Tensor:
    """Ids (R) or (R,C) of the next token, whose codes are at ``first_position`` and following; with guidance both halves of the
    pass get the same."""
    positions = itertools.count(first_position)

    def choose(logits_RV: Tensor) -> Tensor:
        if guidance == 1.0:
            return sampling.choose(logits_RV, next(positions))
        conditional_BV, unconditional_BV = logits_RV.float().chunk(2)
        guided_BV = unconditional_BV + guidance * (conditional_BV - unconditional_BV)
        return repeat(sampling.choose(guided_BV, next(positions)), "b -> (copies b)", copies=2)

    if model.code_head is not None:
        return model.code_head.generate(hidden_RD, choose)
    return choose(F.linear(hidden_RD, model.head_rows(model.vocabulary.visual_begin, model.vocabulary.visual_end)))
