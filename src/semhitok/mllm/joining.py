"""A unified model from a pretrained language model and a pretrained image tokenizer.

Shapes: T text ids, S visual ids, D channels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from semhitok.mllm.configuration import AdapterKind, SemHiTokMLLMConfig
from semhitok.mllm.vocabulary import OWN_MARKS

if TYPE_CHECKING:
    from semhitok.mllm.modeling import SemHiTokForConditionalGeneration

# Ids whose embeddings set the adapter's scale, and text ids on which both models must agree.
PROBED_IDS = 4096
PROBED_TEXT = 16


def own_marks(text_tokenizer: Any, text_size: int) -> tuple[int | None, int | None]:
    """The language model's own ids for begin and end of an image, or (None, None)."""
    known = text_tokenizer.get_vocab() if text_tokenizer is not None else {}
    for begin, end in OWN_MARKS:
        if begin in known and end in known and max(known[begin], known[end]) < text_size:
            return known[begin], known[end]
    return None, None


@torch.no_grad()
def join(
    model_class: type[SemHiTokForConditionalGeneration],
    language_model: PreTrainedModel,
    tokenizer: PreTrainedModel,
    *,
    adapter: AdapterKind,
    text_tokenizer: Any,
    **config: Any,
) -> SemHiTokForConditionalGeneration:
    """See ``SemHiTokForConditionalGeneration.from_language_model``."""
    text_size = language_model.config.vocab_size
    if text_tokenizer is not None and len(text_tokenizer) > text_size:
        raise ValueError(
            f"the text tokenizer has {len(text_tokenizer)} ids, the language model only {text_size}: they do not match"
        )
    begin, end = own_marks(text_tokenizer, text_size)
    joint_config = SemHiTokMLLMConfig(
        text_config=language_model.config,
        tokenizer_config=tokenizer.config,
        adapter=adapter,
        own_begin_id=begin,
        own_end_id=end,
        **config,
    )
    head, layers = language_model.get_output_embeddings(), language_model.base_model
    if head is None or layers is language_model:
        raise ValueError(f"a causal language model with a head is needed, got {type(language_model).__name__}")
    text_head: torch.Tensor = head.weight  # pyright: ignore[reportAssignmentType]
    model = model_class(joint_config, language_model=layers, image_tokenizer=tokenizer)  # pyright: ignore
    own_parts = (model.adapter, model.controls, model.lm_head, model.code_head)
    for part in own_parts:
        if part is not None:
            part.to(text_head.device, text_head.dtype)
    model.lm_head.weight[:text_size] = text_head
    model.lm_head.weight[text_size:] = text_head.float().mean(dim=0).to(text_head.dtype)
    table = model.get_input_embeddings().weight
    if model.controls is not None:
        model.controls.weight[:] = table.float().mean(dim=0).to(table.dtype)
    match_scale(model, apart=True)
    if language_model.generation_config is not None:
        model.generation_config = copy.deepcopy(language_model.generation_config)
    _check_text(model, language_model)
    return model.eval()


@torch.no_grad()
def match_scale(model: SemHiTokForConditionalGeneration, *, apart: bool) -> None:
    """Scale the adapter's last layers so that visual embeddings have the root mean square of the text table.

    Args:
        model: whose adapter is changed in place.
        apart: each MLP's channels get this scale by themselves; otherwise one factor for all keeps directions as they are.
    """
    vocabulary, table = model.vocabulary, model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    shape = (PROBED_IDS,) if vocabulary.codes_per_token == 1 else (PROBED_IDS, vocabulary.codes_per_token)
    ids = torch.randint(vocabulary.visual_size, shape, generator=generator).to(table.device)
    wanted, channels = table.float().square().mean().sqrt(), 0
    visual_PD = model.embed_visual(ids).float()
    for layer in model.adapter.output_layers():
        own = slice(channels, channels + layer.out_features) if apart else slice(None)
        channels += layer.out_features
        factor = wanted / visual_PD[:, own].square().mean().sqrt().clamp_min(1e-12)
        for parameter in (layer.weight, layer.bias):
            parameter.mul_(factor.to(parameter.dtype))


def _check_text(model: SemHiTokForConditionalGeneration, language_model: PreTrainedModel) -> None:
    """Refuse a language model that does more between layers and logits, or before the layers, than this model does."""
    training = language_model.training
    language_model.eval()
    ids_BL = (torch.arange(PROBED_TEXT, device=language_model.device) * 7919 % model.vocabulary.text_size)[None]
    wanted = language_model(input_ids=ids_BL).logits.float()
    found = model.eval()(input_ids=ids_BL).logits[..., : model.vocabulary.text_size].float()
    language_model.train(training)
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
    if not error < 1e-2:
        raise ValueError(
            f"{type(language_model).__name__} computes its logits otherwise than head(layers(embeddings)): they are off by "
            f"{error:.0%}; Qwen2, Qwen2.5, Qwen3, Llama and SmolLM2 are known to work"
        )


def feature_dims(tokenizer: nn.Module, codes_per_token: int) -> tuple[int | None, int]:
    """Channels of the semantic (None if there are none) and of the pixel features, asked with no ids at all."""
    shape = (1, 0) if codes_per_token == 1 else (1, 0, codes_per_token)
    embedded = tokenizer.embed(torch.zeros(shape, dtype=torch.long, device=tokenizer.device))  # pyright: ignore
    return None if embedded.semantic is None else embedded.semantic.shape[-1], embedded.pixel.shape[-1]
