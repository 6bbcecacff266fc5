"""Inspection and checks of a pretrained language model and image tokenizer.

``SemHiTokForConditionalGeneration.from_language_model`` combines them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from semhitok.mllm.vocabulary import OWN_MARKS

PROBED_TEXT = 16
"""Number of text ids on which the unified model and the language model are compared."""


def image_marks(text_tokenizer: Any, text_size: int) -> tuple[int | None, int | None]:
    """The language model's own ids for begin and end of an image, or (None, None).

    Raises:
        ValueError: the text tokenizer has more ids than the language model.
    """
    if text_tokenizer is None:
        return None, None
    if len(text_tokenizer) > text_size:
        raise ValueError(
            f"the text tokenizer has {len(text_tokenizer)} ids, the language model only {text_size}: they do not match"
        )
    known = text_tokenizer.get_vocab()
    for begin, end in OWN_MARKS:
        if begin in known and end in known and max(known[begin], known[end]) < text_size:
            return known[begin], known[end]
    return None, None


def layers_and_head(language_model: PreTrainedModel) -> tuple[PreTrainedModel, Tensor]:
    """The layers with the text table, and the weight of the head (T,D).

    Raises:
        ValueError: the model has no head.
    """
    head, layers = language_model.get_output_embeddings(), language_model.base_model
    if head is None or layers is language_model:
        raise ValueError(f"a causal language model with a head is needed, got {type(language_model).__name__}")
    return layers, head.weight  # pyright: ignore[reportReturnType]


def feature_dims(tokenizer: Any, codes_per_token: int) -> tuple[int | None, int]:
    """Channels of an image tokenizer's semantic (None if there are none) and pixel features."""
    shape = (1, 0) if codes_per_token == 1 else (1, 0, codes_per_token)
    embedded = tokenizer.embed(torch.zeros(shape, dtype=torch.long, device=tokenizer.device))
    return None if embedded.semantic is None else embedded.semantic.shape[-1], embedded.pixel.shape[-1]


def mean_row(table_TD: Tensor) -> Tensor:
    """(T,D) -> (D), averaged in fp32."""
    return table_TD.float().mean(dim=0).to(table_TD.dtype)


@torch.no_grad()
def check_text_logits(unified: nn.Module, language_model: PreTrainedModel) -> None:
    """Reject language models that compute more around their layers than the unified model does.

    Raises:
        ValueError: the text logits differ.
    """
    modes = [(model, model.training) for model in (unified, language_model)]
    text_size = language_model.config.vocab_size
    ids_BL = (torch.arange(PROBED_TEXT, device=language_model.device) * 7919 % text_size)[None]
    found, wanted = (model.eval()(input_ids=ids_BL).logits[..., :text_size].float() for model, _ in modes)
    for model, training in modes:
        model.train(training)
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
    if not error < 1e-2:
        raise ValueError(
            f"{type(language_model).__name__} does not compute its logits as head(layers(embeddings)): they are off by "
            f"{error:.0%}; Qwen2, Qwen2.5, Qwen3, Llama and SmolLM2 are known to work"
        )
