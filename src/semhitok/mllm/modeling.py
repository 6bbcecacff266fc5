"""One causal language model that understands and generates images (arXiv 2503.06764, section 3.3).

    text id      -> the language model's own table
    control id   -> a row of its own: begin and end of an image, if the language model has no such tokens
    visual id    -> features of the image tokenizer -> adapter (dual MLP, Table 7), and its place in the image if the model has
                    ``image_positions``, resolved inside ``forward``
    hidden state -> one head over text and visual ids; one next-token loss over both

How ids are chosen is in ``generation.py``, which ids mean what in ``vocabulary.py``, how a model is built from a language model and an
image tokenizer in ``pretrained_parts.py``.

Shapes: B sequences, L positions, I images, N tokens of one image, C codes per token, D channels, V ids of
the head, T text ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from semhitok.mllm.adapter import Adapter
from semhitok.mllm.code_head import CodeHead
from semhitok.mllm.configuration import SemHiTokMLLMConfig
from semhitok.mllm.embedding import EmbeddingMixin
from semhitok.mllm.filling import ImageFillingMixin, filled_labels
from semhitok.mllm.generation import ImageTextGenerationMixin
from semhitok.mllm.image_positions import ImagePositions, note_tokens, tokens_at_end, tokens_before
from semhitok.mllm.next_token_loss import next_token_loss
from semhitok.mllm.pretrained_parts import PretrainedPartsMixin, feature_dims
from semhitok.mllm.quantization import leave_parts_out
from semhitok.mllm.shared_tokenizer import load_shared_weights
from semhitok.mllm.vocabulary import Vocabulary
from semhitok.tokenizers.checkpoints import hub_options, load_strictly

logger = logging.get_logger(__name__)

TOKENIZER_MODULES = r"image_tokenizer\..*"
"""Names of the modules of the image tokenizer, as ``exclude_modules`` of peft takes them."""


class SemHiTokForConditionalGeneration(
    PreTrainedModel, PretrainedPartsMixin, EmbeddingMixin, ImageFillingMixin, ImageTextGenerationMixin
):
    """A causal LM, a frozen image tokenizer and an adapter, over one vocabulary (see ``Vocabulary``).

    ``generate`` is that of transformers with ``generation_mode`` "text" (default), "image" or "interleaved";
    ``generate_images`` generates images faster. The image tokenizer is part of the saved model, always frozen and in eval
    mode. The head is never tied to the text table: only the head has visual rows.
    """

    config: SemHiTokMLLMConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    config_class = SemHiTokMLLMConfig
    base_model_prefix = ""
    input_modalities = ("image", "text")  # pyright: ignore[reportAssignmentType]
    output_modalities = ("text", "image")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Visual positions are selected by their ids, which a full graph does not support.
    _can_compile_fullgraph = False

    language_model: Any  # the layers and the text table, a PreTrainedModel
    image_tokenizer: Any  # a PreTrainedModel under the protocol ImageTokenizer

    def __init__(
        self,
        config: SemHiTokMLLMConfig,
        language_model: PreTrainedModel | None = None,
        image_tokenizer: PreTrainedModel | None = None,
    ) -> None:
        """Parts that are not passed in are built from the configuration."""
        super().__init__(config)
        vocabulary, width = config.vocabulary, config.text_config.hidden_size
        self.vocabulary: Vocabulary = vocabulary
        self.language_model = language_model or AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.image_tokenizer = image_tokenizer or AutoModel.from_config(
            config.tokenizer_config, trust_remote_code=False
        )
        self.image_tokenizer.requires_grad_(False).eval()
        # A tokenizer without its encoder side ignores those keys; here they have a prefix.
        ignored = getattr(self.image_tokenizer, "_keys_to_ignore_on_load_unexpected", None) or []
        self._keys_to_ignore_on_load_unexpected = [rf"^image_tokenizer\.{pattern.lstrip('^')}" for pattern in ignored]
        if config.shared_tokenizer is not None:
            self._keys_to_ignore_on_load_missing = [r"^image_tokenizer\."]
        semantic_dim, pixel_dim = feature_dims(self.image_tokenizer, vocabulary.codes_per_token)
        self.adapter = Adapter(config.adapter, semantic_dim=semantic_dim, pixel_dim=pixel_dim, width=width)
        self.image_positions: ImagePositions | None = None
        if config.image_positions:
            side = config.tokenizer_config.image_size
            rows, columns = config.tokenizer_config.grid(side, side)
            self.image_positions = ImagePositions(rows, columns, width)
        self.controls = nn.Embedding(vocabulary.controls, width) if vocabulary.controls else None
        self.lm_head = nn.Linear(width, vocabulary.size, bias=False)
        self.code_head: CodeHead | None = None
        if vocabulary.codes_per_token > 1:
            self.code_head = CodeHead(
                hidden_size=width,
                codes=vocabulary.codes_per_token,
                vocab_size=vocabulary.visual_size,
                layers=config.code_head_layers,
                width=config.code_head_width,
                heads=config.code_head_heads,
            )
        self.post_init()

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, encoder: bool = True, **kwargs: Any
    ) -> SemHiTokForConditionalGeneration:
        """Load weights strictly, from a folder, a hub id, or the name of a checkpoint bundled with the package.

        ``encoder=False`` omits the encoder side of the image tokenizer, which text-to-image generation does not need. Other
        arguments are as in transformers; with ``quantization_config`` only the language model's layers are quantized. Missing,
        unexpected or misshapen keys raise a ``ValueError`` that names them.
        """
        load_checked: Callable[..., Any] = super().from_pretrained

        def load(path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
            if not encoder:
                kwargs["config"] = kwargs.get("config") or SemHiTokMLLMConfig.from_pretrained(
                    path, **hub_options(kwargs)
                )
                kwargs["config"].tokenizer_config.encoder = False
            model, info = load_checked(path, *args, **kwargs)
            config = model.config
            if config.shared_tokenizer is not None:
                load_shared_weights(model.image_tokenizer, config.shared_tokenizer, config.tokenizer_fingerprint)
                config.shared_tokenizer = config.tokenizer_fingerprint = None  # the model is complete now
            model.image_tokenizer.requires_grad_(False)  # loading creates new parameters
            return model, info

        kwargs["quantization_config"] = leave_parts_out(kwargs.get("quantization_config"))
        kind = SemHiTokMLLMConfig.model_type
        return load_strictly(load, pretrained_model_name_or_path, kind, *args, quantizable=True, **kwargs)

    def get_input_embeddings(self) -> nn.Embedding:
        """The text table, T rows."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text table."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head over text and visual ids."""
        return self.lm_head

    def get_decoder(self) -> PreTrainedModel:
        """The language model's layers."""
        return self.language_model

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Not supported: visual ids begin where the text ids end."""
        raise ValueError(
            "the vocabulary cannot be resized, visual ids follow the text ids: build the model anew instead"
        )

    def train(self, mode: bool = True) -> SemHiTokForConditionalGeneration:
        """As in torch, but the image tokenizer stays frozen and in eval mode, with what peft may have added to it."""
        super().train(mode)
        trainable = sum(parameter.requires_grad for parameter in self.image_tokenizer.parameters())
        if trainable and mode:
            logger.warning_once(
                f"{trainable} trainable tensors in the image tokenizer were frozen, which must not change: pass "
                f"exclude_modules=r'{TOKENIZER_MODULES}' to peft"
            )
        self.image_tokenizer.requires_grad_(False).eval()
        return self

    def body(
        self,
        input_ids: Tensor | None = None,
        visual_codes: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The model without its head, on ids without placeholders or on embeddings: ``last_hidden_state`` (B,L,D)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        before_B = tokens_before(kwargs.get("past_key_values"))
        if input_ids is not None:
            inputs_embeds = self.embed(input_ids, visual_codes, before_B)
        outputs = self.language_model(inputs_embeds=inputs_embeds, **(kwargs | {"return_dict": True}))
        if self.image_positions is not None and input_ids is not None:
            visual_BL = self.vocabulary.is_visual(input_ids)
            note_tokens(outputs.past_key_values, tokens_at_end(visual_BL, self.vocabulary.image_tokens, before_B))
        return outputs

    def head_rows(self, begin: int, end: int) -> Tensor:
        """The head's rows for ids in [begin, end): (end - begin, D)."""
        return self.lm_head.weight[begin:end]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        pixel_values: Tensor | None = None,
        visual_codes: Tensor | None = None,
        text_only: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits over text and visual ids, and the next-token loss.

        Args:
            input_ids: (B,L); images as begin, N visual ids or placeholders, end.
            attention_mask, position_ids, past_key_values, use_cache: as in the language model. Packed samples are kept
                apart by position_ids that restart, without attention_mask and with use_cache False (the default with
                labels: transformers looks for packed samples only where there is no cache).
            inputs_embeds: (B,L,D) instead of input_ids.
            labels: (B,L) ids as in input_ids, including placeholders, -100 for ignored positions; shifted here. A visual
                position counts like a text position: with C codes as the mean of their losses.
            logits_to_keep: number of last positions whose logits are computed, 0 for all, or the positions themselves (P).
            pixel_values: (I,3,H,W) in [-1,1], tokenized and filled in at the placeholders.
            visual_codes: (B,L,C) codes at visual positions, with a tokenizer of several codes per token.
            text_only: compute only the T text rows of the head.
            num_items_in_batch: divide the summed loss by this instead of the number of labels.

        Returns:
            logits (B,L,V), or (B,L,T) with ``text_only``; with C > 1 those of the codes come from ``code_head``. With
            ``return_dict`` False a tuple, as in transformers.
        """
        if use_cache is None and labels is not None:
            use_cache = False
        if input_ids is not None:
            given_BL = input_ids
            input_ids, visual_codes = self.fill_images(given_BL, pixel_values, visual_codes)
            labels = None if labels is None else filled_labels(self.vocabulary, labels, given_BL, input_ids)
        outputs = self.body(
            input_ids,
            visual_codes,
            inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_BLD = outputs.last_hidden_state
        assert hidden_BLD is not None
        every = isinstance(logits_to_keep, int) and logits_to_keep == 0
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        kept_BLD = hidden_BLD if every else hidden_BLD[:, kept]
        logits = (
            F.linear(kept_BLD, self.head_rows(0, self.vocabulary.text_size)) if text_only else self.lm_head(kept_BLD)
        )
        loss = None
        if labels is not None:
            if not every or text_only:
                raise ValueError("a loss needs all logits: leave logits_to_keep and text_only at their defaults")
            total, count = next_token_loss(logits, hidden_BLD, labels, visual_codes, self.vocabulary, self.code_head)
            loss = total / (count.clamp_min(1) if num_items_in_batch is None else num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,  # pyright: ignore[reportArgumentType]
            logits=logits,  # pyright: ignore[reportArgumentType]
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
