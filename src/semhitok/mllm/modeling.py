"""One causal language model that reads and draws images (arXiv 2503.06764, section 3.3).

    text id   -> the language model's own table
    visual id -> image_tokenizer.embed(id) -> adapter (dual MLP)      resolved inside forward
    hidden state -> one head over text and visual ids; one next-token loss over both

Shapes: B sequences, L positions, P visual positions, N tokens of one image, C codes per token, D channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from semhitok.mllm import generation, image_generation
from semhitok.mllm.adapter import Adapter
from semhitok.mllm.code_head import CodeHead
from semhitok.mllm.configuration import AdapterKind, SemHiTokMLLMConfig
from semhitok.mllm.embedding import embed_ids
from semhitok.mllm.filling import fill_images
from semhitok.mllm.joining import feature_dims, join
from semhitok.mllm.legal_ids import GenerationMode
from semhitok.mllm.next_token import IGNORED, next_token_loss
from semhitok.mllm.shared_tokenizer import take_shared_tokenizer
from semhitok.mllm.vocabulary import Vocabulary
from semhitok.tokenizers.checkpoints import load_strictly


class SemHiTokForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A causal LM, a frozen image tokenizer and an adapter, over one vocabulary (see ``Vocabulary``).

    ``generate`` is that of transformers with ``generation_mode`` "text" (default), "image" or "interleaved";
    ``generate_images`` draws faster. The image tokenizer is part of the saved model, always frozen and in eval mode.
    The head is never tied to the text table: only the head has visual rows.
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
    # Visual positions are picked out by their ids, which a full graph cannot do.
    _can_compile_fullgraph = False

    language_model: Any  # the layers and the text table, a PreTrainedModel
    image_tokenizer: Any  # a PreTrainedModel under the protocol ImageTokenizer

    def __init__(
        self,
        config: SemHiTokMLLMConfig,
        language_model: PreTrainedModel | None = None,
        image_tokenizer: PreTrainedModel | None = None,
    ) -> None:
        """The parts are built from the configuration unless they are handed in."""
        super().__init__(config)
        vocabulary, width = config.vocabulary, config.text_config.hidden_size
        self.vocabulary: Vocabulary = vocabulary
        self.language_model = language_model or AutoModel.from_config(config.text_config)
        self.image_tokenizer = image_tokenizer or AutoModel.from_config(config.tokenizer_config)
        self.image_tokenizer.requires_grad_(False).eval()
        # A tokenizer without its encoder side ignores those keys; here they have a prefix.
        ignored = getattr(self.image_tokenizer, "_keys_to_ignore_on_load_unexpected", None) or []
        self._keys_to_ignore_on_load_unexpected = [rf"^image_tokenizer\.{pattern.lstrip('^')}" for pattern in ignored]
        if config.shared_tokenizer is not None:
            self._keys_to_ignore_on_load_missing = [r"^image_tokenizer\."]
        semantic_dim, pixel_dim = feature_dims(self.image_tokenizer, vocabulary.codes_per_token)
        self.adapter = Adapter(config.adapter, semantic_dim=semantic_dim, pixel_dim=pixel_dim, width=width)
        self.controls = nn.Embedding(vocabulary.controls, width) if vocabulary.controls else None
        self.lm_head = nn.Linear(width, vocabulary.size, bias=False)
        self.code_head = None
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
    def from_language_model(
        cls,
        language_model: PreTrainedModel | str | os.PathLike[str],
        tokenizer: PreTrainedModel,
        adapter: AdapterKind = "dual",
        text_tokenizer: Any = None,
        **config: Any,
    ) -> SemHiTokForConditionalGeneration:
        """Start from pretrained parts; text in, text out is unchanged.

        Args:
            language_model: a causal LM of transformers, or its folder or hub id. Its layers are used, not copied.
            tokenizer: the image tokenizer, under the protocol ``ImageTokenizer``; frozen from here on.
            adapter: see ``SemHiTokMLLMConfig``.
            text_tokenizer: looked into for the language model's own image marks; taken from the folder when the language
                model is one. Without it two control ids are added.
            config: further fields of ``SemHiTokMLLMConfig``.

        Returns:
            The model in the language model's dtype, with visual head rows at the mean of the text rows and an adapter
            whose output has the scale of the text embeddings.

        Raises:
            ValueError: if the text tokenizer has ids that the language model has not, or the language model computes its
                logits otherwise than head(layers(embeddings)).
        """
        if not isinstance(language_model, PreTrainedModel):
            text_tokenizer = text_tokenizer or AutoTokenizer.from_pretrained(language_model)
            language_model = AutoModelForCausalLM.from_pretrained(language_model)
        return join(cls, language_model, tokenizer, adapter=adapter, text_tokenizer=text_tokenizer, **config)

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
        """Refused: visual ids begin where the text ids end."""
        raise ValueError(
            "the vocabulary cannot be resized, visual ids follow the text ids: build the model anew instead"
        )

    def train(self, mode: bool = True) -> SemHiTokForConditionalGeneration:
        """As in torch, but the image tokenizer stays in eval mode."""
        super().train(mode)
        self.image_tokenizer.eval()
        return self

    @torch.no_grad()
    def fill_images(
        self, input_ids: Tensor, pixel_values: Tensor | None, visual_codes: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokenize images and put their ids at the placeholders, in order.

        Args:
            input_ids: (B,L) with N placeholders for every image.
            pixel_values: (images,3,H,W) in [-1,1], or None where nothing is to be filled in.
            visual_codes: (B,L,C) codes of the images that are already ids; C > 1 only.

        Returns:
            input_ids without placeholders, and visual_codes (None where C = 1).

        Raises:
            ValueError: if images and placeholders do not agree in number, or an image has not N tokens.
        """
        return fill_images(self.vocabulary, self.image_tokenizer, input_ids, pixel_values, visual_codes)

    def embed_visual(self, tokenizer_ids: Tensor) -> Tensor:
        """Ids of the image tokenizer (P) or (P,C) -> input embeddings (P,D)."""
        return self.adapter(self.image_tokenizer.embed(tokenizer_ids[None]))[0]

    def embed(self, input_ids: Tensor, visual_codes: Tensor | None = None) -> Tensor:
        """Ids (B,L) of text and images, without placeholders, and codes (B,L,C) where C > 1 -> embeddings (B,L,D)."""
        return embed_ids(self, input_ids, visual_codes)

    def body(
        self,
        input_ids: Tensor | None = None,
        visual_codes: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Everything below the head, on ids without placeholders or on embeddings: ``last_hidden_state`` (B,L,D)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        if input_ids is not None:
            inputs_embeds = self.embed(input_ids, visual_codes)
        return self.language_model(inputs_embeds=inputs_embeds, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
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
            inputs_embeds: (B,L,D) in place of input_ids.
            labels: (B,L) ids as in input_ids, placeholders included, -100 where there is nothing to learn; shifted here. A
                visual position counts like a text position: with C codes as the mean of their losses.
            logits_to_keep: the number of last positions that get logits; 0 for all.
            pixel_values: (images,3,H,W) in [-1,1], tokenized and put at the placeholders.
            visual_codes: (B,L,C) codes at visual positions, with a tokenizer of several codes per token.
            text_only: multiply the T text rows of the head only.
            num_items_in_batch: divide the summed loss by this in place of the number of labels.

        Returns:
            logits (B,L,T+S+controls), or (B,L,T); with C > 1 those of the codes come from ``code_head``.
        """
        if use_cache is None and labels is not None:
            use_cache = False
        if input_ids is not None:
            given_BL = input_ids
            input_ids, visual_codes = self.fill_images(given_BL, pixel_values, visual_codes)
            if labels is not None:
                drawn_BL = (given_BL == self.vocabulary.placeholder_id) & (labels != IGNORED)
                labels = torch.where(drawn_BL, input_ids, labels)
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
        kept_BLD = hidden_BLD[:, -logits_to_keep:] if logits_to_keep else hidden_BLD
        logits = (
            F.linear(kept_BLD, self.head_rows(0, self.vocabulary.text_size)) if text_only else self.lm_head(kept_BLD)
        )
        loss = None
        if labels is not None:
            if logits_to_keep or text_only:
                raise ValueError("a loss needs all logits: leave logits_to_keep and text_only at their defaults")
            total, count = next_token_loss(self.vocabulary, self.code_head, logits, hidden_BLD, labels, visual_codes)
            loss = total / (count.clamp_min(1) if num_items_in_batch is None else num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,  # pyright: ignore[reportArgumentType]
            logits=logits,  # pyright: ignore[reportArgumentType]
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def head_rows(self, begin: int, end: int) -> Tensor:
        """The head's rows for ids in [begin, end): (end - begin, D)."""
        return self.lm_head.weight[begin:end]

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Tensor | None = None, *, generation_mode: GenerationMode = "text", **kwargs: Any
    ) -> Any:
        """``generate`` of transformers, with all its options except beams for images.

        Args:
            inputs: (B,L) prompts, also as ``input_ids``; with ``pixel_values`` and ``attention_mask`` from the processor.
            generation_mode: "text": only text ids follow. "image": exactly N visual ids follow the image begin id, which is
                appended where the prompts do not end with it. "interleaved": text in which images may stand, each complete.
            kwargs: as in transformers. ``guidance_scale`` > 1 with ``negative_prompt_ids`` (default: the image begin id
                alone, as in training) is classifier-free guidance in two passes; ``generate_images`` does it in one.

        Returns:
            "text" and "interleaved": (B,L') ids, prompts included (as is all that ``return_dict_in_generate`` returns). "image": ids of the image tokenizer (B,N) or (B,N,C) for
            ``decode_image_tokens``.

        Raises:
            ValueError: for an empty prompt, one that leaves no room in the context, visual ids outside an image, images that
                do not match the placeholders, guidance_scale <= 0.
        """
        stock = super().generate  # pyright: ignore[reportAttributeAccessIssue]
        return generation.generate(self, stock, inputs, generation_mode, **kwargs)

    @torch.no_grad()
    def generate_images(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Draw one image for each prompt; one pass per step over conditional and unconditional prompts.

        Args and errors: see ``image_generation.stream_codes``. Equal to ``generate(generation_mode="image", guidance_scale=...)``
        under greedy decoding, and faster: only visual rows of the head are multiplied.

        Returns:
            ids of the image tokenizer (B,N), or (B,N,C).
        """
        return torch.stack(list(image_generation.stream_codes(self, input_ids, attention_mask, **options)), dim=1)

    def stream_images(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As ``generate_images``, but the ids so far after every finished row of tokens: (B,n) or (B,n,C), n growing to N.

        ``decode_partial`` turns each into images.
        """
        return image_generation.stream_rows(self, input_ids, attention_mask, **options)

    def decode_image_tokens(self, image_tokens: Tensor) -> Tensor:
        """Ids of the image tokenizer (B,N) or (B,N,C) -> images (B,3,H,W) in [-1,1]."""
        return self.image_tokenizer.decode(image_tokens)

    def decode_partial(self, image_tokens: Tensor) -> Tensor:
        """The first rows of images, (B,n) or (B,n,C) -> (B,3,H,W) in [-1,1], grey where there are no tokens yet.

        The decoder looks at all tokens, so the missing rows are filled with copies of the last finished one before decoding
        and painted over in grey after it: nothing is shown that was not drawn.
        """
        return image_generation.decode_partial(self, image_tokens)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, visual_codes: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers; the prompt's visual codes go along as far as its ids do."""
        prepared = super().prepare_inputs_for_generation(input_ids, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        ids = prepared.get("input_ids")
        if visual_codes is not None and ids is not None:
            codes = F.pad(visual_codes, (0, 0, 0, input_ids.shape[1] - visual_codes.shape[1]))
            prepared["visual_codes"] = codes[:, input_ids.shape[1] - ids.shape[1] :]
        return prepared

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, encoder: bool = True, **kwargs: Any
    ) -> SemHiTokForConditionalGeneration:
        """Load weights strictly, from a folder, a hub id, or the name of a checkpoint shipped with the package.

        ``encoder=False`` leaves out the encoder side of the image tokenizer: enough for text in, image out. The rest is as in
        transformers. Missing, unexpected or misshapen keys raise a ``ValueError`` that names them.
        """
        load_checked: Callable[..., Any] = super().from_pretrained

        def load(path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
            if not encoder:
                kwargs["config"] = kwargs.get("config") or SemHiTokMLLMConfig.from_pretrained(path)
                kwargs["config"].tokenizer_config.encoder = False
            model, info = load_checked(path, *args, **kwargs)
            if model.config.shared_tokenizer is not None:
                take_shared_tokenizer(model)
            model.image_tokenizer.requires_grad_(False)  # loading makes new parameters
            return model, info

        return load_strictly(load, pretrained_model_name_or_path, SemHiTokMLLMConfig.model_type, *args, **kwargs)
