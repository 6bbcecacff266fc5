"""Options of transformers' ``generate``, wherever they are named, and what each generation mode makes of them.

An option may be a keyword of ``generate``, a field of the ``generation_config`` that is passed, or a field of the model's own;
the first that is set counts, as in transformers.

Shapes: B sequences, L positions.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from semhitok.mllm.legal_ids import GenerationMode, LegalIds
from semhitok.mllm.prompts import with_begin
from semhitok.mllm.vocabulary import Vocabulary

# The generation configs of language models (few candidates, repetition penalty) are meant for text and would ruin images.
PLAIN: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "num_beams": 1}
PLAIN_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
LIMITS = ("max_new_tokens", "max_length")
# These look up the scores of all ids of the prompt, those of its images included; with the values that switch them off.
LOOK_AT_PROMPT_IDS = {
    "encoder_repetition_penalty": (None, 1),
    "encoder_no_repeat_ngram_size": (None, 0),
    "no_repeat_ngram_size": (None, 0),
}
OF_SEVERAL_CODES = ("do_sample", "temperature", "top_k", "top_p", "guidance_scale")


def find_option(name: str, kwargs: dict[str, Any], own: GenerationConfig | None) -> Any:
    """The value of an option of ``generate``, or None if it is not set anywhere.

    Args:
        name: the option.
        kwargs: keywords of ``generate``, possibly with ``generation_config``.
        own: the model's generation config.
    """
    found = (kwargs.get(name), *(getattr(each, name, None) for each in (kwargs.get("generation_config"), own)))
    return next((value for value in found if value is not None), None)


def text_options(
    vocabulary: Vocabulary,
    mode: GenerationMode,
    prompt_BL: Tensor,
    context_length: int,
    kwargs: dict[str, Any],
    own: GenerationConfig | None,
) -> dict[str, Any]:
    """Options of transformers for text, with images in mode "interleaved"; without a limit that fills the context."""
    prompt_length = prompt_BL.shape[1]
    unguided = find_option("guidance_scale", kwargs, own) in (None, 1)  # a guidance pass would not receive text_only
    text_only = mode == "text" and unguided and not _scores_of_images_are_looked_up(vocabulary, prompt_BL, kwargs, own)
    if text_only:
        kwargs["text_only"] = True
    max_length = _max_length(prompt_length, kwargs, own)
    if mode == "interleaved" and max_length is None:
        max_length = context_length
        kwargs = _with_new_tokens(kwargs, context_length - prompt_length)
    processors = list(kwargs.pop("logits_processor", None) or [])
    if not (text_only and vocabulary.controls):  # all text rows are legal if no image marks are among them
        processors.insert(0, LegalIds(vocabulary, mode, max_length or prompt_length))
    return kwargs | {"logits_processor": LogitsProcessorList(processors)}


def image_options(
    vocabulary: Vocabulary,
    prompt_length: int,
    *,
    own_top_k: int = 0,
    negative_prompt_ids: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Options of transformers for exactly N visual ids, one code per token; sampled ones from ``own_top_k`` unless told otherwise."""
    if negative_prompt_ids is not None:
        kwargs["negative_prompt_ids"], kwargs["negative_prompt_attention_mask"] = with_begin(
            vocabulary, negative_prompt_ids, negative_prompt_attention_mask
        )
    if kwargs.get("generation_config") is None:
        sampling = PLAIN_SAMPLING | {"top_k": own_top_k} if kwargs.get("do_sample") else {}
        kwargs = PLAIN | sampling | kwargs
    legal = LegalIds(vocabulary, "image", prompt_length + vocabulary.image_tokens)
    processors = LogitsProcessorList([legal, *(kwargs.pop("logits_processor", None) or [])])
    return _with_new_tokens(kwargs, vocabulary.image_tokens) | {"logits_processor": processors}


def options_of_several_codes(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keywords with those fields of a ``generation_config`` among them that apply to images of several codes per token."""
    rest = {name: value for name, value in kwargs.items() if name not in (*LIMITS, "generation_config")}
    if kwargs.get("generation_config") is None:
        return rest
    found = {name: find_option(name, kwargs, None) for name in OF_SEVERAL_CODES}
    return rest | {name: value for name, value in found.items() if value is not None}


def _max_length(prompt_length: int, kwargs: dict[str, Any], own: GenerationConfig | None) -> int | None:
    """Length at which transformers stops, prompt included, or None if no limit is set; ``max_new_tokens`` takes precedence."""
    new, whole = (find_option(name, kwargs, own) for name in LIMITS)
    return whole if new is None else prompt_length + new


def _with_new_tokens(kwargs: dict[str, Any], count: int) -> dict[str, Any]:
    """The keywords with another limit; transformers warns about a keyword beside a ``generation_config``."""
    kwargs = {name: value for name, value in kwargs.items() if name not in LIMITS}
    if kwargs.get("generation_config") is None:
        return kwargs | {"max_new_tokens": count}
    config = copy.deepcopy(kwargs["generation_config"])
    config.max_new_tokens, config.max_length = count, None
    return kwargs | {"generation_config": config}


def _scores_of_images_are_looked_up(
    vocabulary: Vocabulary, prompt_BL: Tensor, kwargs: dict[str, Any], own: GenerationConfig | None
) -> bool:
    """Whether the rows of the head for images are needed, too, although no image is generated."""
    used = any(find_option(name, kwargs, own) not in off for name, off in LOOK_AT_PROMPT_IDS.items())
    if not (used or kwargs.get("logits_processor")):
        return False
    return bool((prompt_BL >= vocabulary.text_size).any())
