"""A unified model from pretrained parts, a language model and an image tokenizer: building it, and checks of the parts.

Shapes: T text ids, D channels, C codes per token.
"""

from __future__ import annotations

import copy
import os
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from semhitok.mllm.adapter import Adapter
from semhitok.mllm.configuration import SemHiTokMLLMConfig
from semhitok.mllm.vocabulary import OWN_MARKS, Vocabulary
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.storage.weights import load_weights
from semhitok.types import AdapterKind

PROBED_TEXT = 16
"""Number of text ids on which the unified model and the language model are compared."""
PROBED_IDS = 4096
"""Visual ids whose embeddings set the adapter's scale."""


class PartsOfModel(Protocol):
    """The parts whose scales are matched; see ``SemHiTokForConditionalGeneration``."""

    vocabulary: Vocabulary
    image_tokenizer: Any
    adapter: Adapter

    def get_input_embeddings(self) -> nn.Embedding: ...


class PretrainedPartsMixin:
    """Builds a unified model; see ``SemHiTokForConditionalGeneration``."""

    @classmethod
    @torch.no_grad()
    def from_language_model(
        cls,
        language_model: PreTrainedModel | str | os.PathLike[str],
        tokenizer: PreTrainedModel,
        adapter: AdapterKind = "dual",
        text_tokenizer: Any = None,
        **config: Any,
    ) -> Self:
        """Build a model from pretrained parts; its text logits are those of the language model.

        Args:
            language_model: a causal LM of transformers, or its folder or hub id. Its layers are used, not copied.
            tokenizer: the image tokenizer, under the protocol ``ImageTokenizer``; frozen from here on.
            adapter: see ``SemHiTokMLLMConfig``.
            text_tokenizer: searched for the language model's own image marks; by default loaded from the language model's folder
                or hub id, if given. Without it two control ids are added.
            config: further fields of ``SemHiTokMLLMConfig``.

        Returns:
            The model in the language model's dtype and in eval mode. The head's visual rows are the mean of its text rows, and
            the adapter's outputs have the scale of the text embeddings.

        Raises:
            ValueError: the text tokenizer has more ids than the language model, or the language model does not compute its
                logits as head(layers(embeddings)).
        """
        if not isinstance(language_model, PreTrainedModel):
            text_tokenizer = text_tokenizer or load_without_foreign_code(AutoTokenizer.from_pretrained, language_model)
            language_model = load_weights(AutoModelForCausalLM.from_pretrained, language_model)
        assert isinstance(language_model, PreTrainedModel)
        text_size = language_model.config.vocab_size
        begin, end = image_marks(text_tokenizer, text_size)
        joint_config = SemHiTokMLLMConfig(
            text_config=language_model.config,
            tokenizer_config=tokenizer.config,
            adapter=adapter,
            own_begin_id=begin,
            own_end_id=end,
            **config,
        )
        layers, text_head_TD = layers_and_head(language_model)
        build: Any = cls
        model = build(joint_config, language_model=layers, image_tokenizer=tokenizer)
        for part in (model.adapter, model.image_positions, model.controls, model.lm_head, model.code_head):
            if part is not None:
                part.to(text_head_TD.device, text_head_TD.dtype)
        model.lm_head.weight[:text_size] = text_head_TD
        model.lm_head.weight[text_size:] = mean_row(text_head_TD)
        if model.controls is not None:
            model.controls.weight[:] = mean_row(model.get_input_embeddings().weight)
        model.match_scale(per_mlp=True)
        if language_model.generation_config is not None:
            model.generation_config = copy.deepcopy(language_model.generation_config)
        check_text_logits(model, language_model)
        return model.eval()

    @torch.no_grad()
    def match_scale(self: PartsOfModel, *, per_mlp: bool) -> None:
        """Rescale the adapter so that visual embeddings have the root mean square of the text embeddings; see ``Adapter``."""
        vocabulary, table = self.vocabulary, self.get_input_embeddings().weight
        generator = torch.Generator().manual_seed(0)
        shape = (1, PROBED_IDS) if vocabulary.codes_per_token == 1 else (1, PROBED_IDS, vocabulary.codes_per_token)
        ids = torch.randint(vocabulary.visual_size, shape, generator=generator).to(table.device)
        wanted = table.float().square().mean().sqrt()
        self.adapter.match_scale(self.image_tokenizer.embed(ids), wanted, per_mlp=per_mlp)


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
