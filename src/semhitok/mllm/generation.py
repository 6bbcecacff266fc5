"""Text, images and both by ``generate`` of transformers: prompts are checked and completed, illegal ids are masked.

Shapes: B sequences, L positions, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList

from semhitok.mllm.image_generation import stream_codes
from semhitok.mllm.legal_ids import GenerationMode, LegalIds
from semhitok.mllm.prompts import check_guidance, check_prompt, with_begin
from semhitok.mllm.sampling import Sampling

if TYPE_CHECKING:
    from semhitok.mllm.modeling import SemHiTokForConditionalGeneration

# What language models ship with (few candidates, no repetition) is made for text and would ruin images.
PLAIN: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "num_beams": 1}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def generate(
    model: SemHiTokForConditionalGeneration,
    stock: Callable[..., Any],
    inputs: Tensor | None,
    mode: GenerationMode,
    *,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    pixel_values: Tensor | None = None,
    visual_codes: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """See ``SemHiTokForConditionalGeneration.generate``; ``stock`` is that of transformers."""
    if mode not in ("text", "image", "interleaved"):
        raise ValueError(f"generation_mode must be text, image or interleaved, got {mode!r}")
    prompt = inputs if inputs is not None else input_ids
    if prompt is None:
        raise ValueError("the prompt is missing: pass input_ids")
    check_guidance(kwargs.get("guidance_scale"))
    prompt, visual_codes = model.fill_images(prompt, pixel_values, visual_codes)
    if mode == "image":
        prompt, attention_mask = with_begin(model.vocabulary, prompt, attention_mask)
    check_prompt(model.vocabulary, prompt, attention_mask, mode=mode, context_length=model.config.context_length)
    several = model.vocabulary.codes_per_token > 1
    if mode == "image":
        draw = _draw_codes if several else _draw
        return draw(model, stock, prompt, attention_mask, visual_codes=visual_codes, **kwargs)
    if several:
        if mode == "interleaved":
            raise ValueError(
                "with several codes per token an image cannot follow inside a sequence of ids: use generation_mode text or "
                "image"
            )
        kwargs["visual_codes"] = visual_codes
    text_only = mode == "text" and kwargs.get("guidance_scale") in (None, 1)
    if text_only:
        kwargs["text_only"] = True  # a guidance pass would not know of it
    if mode == "interleaved" and kwargs.get("max_new_tokens") is None:
        kwargs["max_new_tokens"] = model.config.context_length - prompt.shape[1]
    processors = list(kwargs.pop("logits_processor", None) or [])
    if not (text_only and model.vocabulary.controls):  # text rows alone, without image marks among them, are all legal
        length = prompt.shape[1] + (kwargs.get("max_new_tokens") or 0)
        processors.insert(0, LegalIds(model.vocabulary, mode, length))
    kwargs["logits_processor"] = LogitsProcessorList(processors)
    return stock(prompt, attention_mask=attention_mask, **kwargs)


def _draw(
    model: SemHiTokForConditionalGeneration,
    stock: Callable[..., Any],
    prompt: Tensor,
    attention_mask: Tensor | None,
    *,
    visual_codes: Tensor | None,
    negative_prompt_ids: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """One code per token: exactly N visual ids from the loop of transformers, as ids of the image tokenizer (B,N)."""
    assert visual_codes is None, "one code per token stands in the sequence itself"
    vocabulary = model.vocabulary
    if negative_prompt_ids is not None:
        negative_prompt_ids, negative_prompt_attention_mask = with_begin(
            vocabulary, negative_prompt_ids, negative_prompt_attention_mask
        )
        kwargs["negative_prompt_ids"] = negative_prompt_ids
        kwargs["negative_prompt_attention_mask"] = negative_prompt_attention_mask
    if kwargs.get("generation_config") is None:
        kwargs = PLAIN | (PLAIN_SAMPLING if kwargs.get("do_sample") else {}) | kwargs
    length = prompt.shape[1] + vocabulary.image_tokens
    processors = [LegalIds(vocabulary, "image", length), *(kwargs.pop("logits_processor", None) or [])]
    kwargs |= {"max_new_tokens": vocabulary.image_tokens, "logits_processor": LogitsProcessorList(processors)}
    found = stock(prompt, attention_mask=attention_mask, **kwargs)
    if not isinstance(found, Tensor):
        return found
    return vocabulary.tokenizer_ids(found[:, prompt.shape[1] :])


def _draw_codes(
    model: SemHiTokForConditionalGeneration,
    stock: Callable[..., Any],
    prompt: Tensor,
    attention_mask: Tensor | None,
    *,
    visual_codes: Tensor | None,
    guidance_scale: float | None = None,
    negative_prompt_ids: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_new_tokens: int | None = None,
    **kwargs: Any,
) -> Tensor:
    """Several codes per token: our own loop, (B,N,C); the options of transformers that mean something here."""
    del stock, max_new_tokens  # an image has N tokens whatever the caller's limit
    if kwargs:
        raise ValueError(f"with several codes per token generate draws images without {', '.join(sorted(kwargs))}")
    if visual_codes is not None:
        visual_codes = F.pad(visual_codes, (0, 0, 0, prompt.shape[1] - visual_codes.shape[1]))
    seed = int(torch.randint(2**31, ())) if do_sample else 0  # follows torch.manual_seed, as transformers does
    codes = stream_codes(
        model,
        prompt,
        attention_mask,
        guidance=1.0 if guidance_scale is None else guidance_scale,
        negative_ids=negative_prompt_ids,
        negative_attention_mask=negative_prompt_attention_mask,
        sampling=Sampling(temperature=temperature if do_sample else 0.0, top_k=top_k, top_p=top_p, seed=seed),
        visual_codes=visual_codes,
    )
    return torch.stack(list(codes), dim=1)
