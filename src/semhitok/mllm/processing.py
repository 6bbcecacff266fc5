"""Texts and images to model inputs, and generated ids back to text and images; conversations are in ``chat_inputs.py``.

Shapes: B texts, L positions, N tokens of one image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from semhitok.data.records import IMAGE
from semhitok.mllm.bounded_templates import check_template
from semhitok.mllm.chat import default_template, in_order
from semhitok.mllm.chat_inputs import ChatInputsMixin
from semhitok.mllm.chat_rendering import ChatText
from semhitok.mllm.configuration import SemHiTokMLLMConfig
from semhitok.mllm.control_marks import IMAGE_PLACE, Segment
from semhitok.mllm.generated_parts import TEXT, kinds_of, texts_and_images
from semhitok.mllm.legal_ids import GenerationMode
from semhitok.mllm.padding import padded_length, truncate
from semhitok.mllm.text_segments import text_segments
from semhitok.mllm.vocabulary import Vocabulary
from semhitok.storage.configuration_fields import check_types
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.checkpoints import builtin_checkpoint
from semhitok.tokenizers.processors import tried


class SemHiTokMLLMProcessor(ChatInputsMixin, ProcessorMixin):
    """Texts with ``<image>`` in place of images -> ``input_ids``, ``attention_mask``, ``pixel_values``.

    The text tokenizer is never extended: an image becomes begin id, N placeholders and end id, which the model fills in. Batches are
    padded on the left. In chats, whatever a message says is text, also what reads like a control token or ``<image>``.

    Args:
        image_processor: a tokenizer's image processor; its size is that of the image tokenizer.
        tokenizer: the language model's text tokenizer (transformers asks for this name).
        text_size, visual_size, image_tokens, codes_per_token, own_begin_id, own_end_id: see ``Vocabulary``.
        context_length: number of positions that the language model supports.
        chat_template: by default the text tokenizer's own if it has one, otherwise "role: content" line by line.

    Raises:
        ValueError: an argument is of another type, the chat template is none, or the text tokenizer has more ids than the
            language model or is not one of the library tokenizers.
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        text_size: int,
        visual_size: int,
        image_tokens: int,
        context_length: int,
        codes_per_token: int = 1,
        own_begin_id: int | None = None,
        own_end_id: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        check_types(
            SemHiTokMLLMProcessor.__init__, locals()
        )  # not decorated: transformers reads the names of its arguments
        super().__init__(
            image_processor,
            tokenizer,
            chat_template=chat_template or default_template(tokenizer, begins=bool(_beginning(tokenizer))),
        )
        if isinstance(self.chat_template, str):
            check_template(self.chat_template)
        self.text_size = text_size
        self.visual_size = visual_size
        self.image_tokens = image_tokens
        self.context_length = context_length
        self.codes_per_token = codes_per_token
        self.own_begin_id = own_begin_id
        self.own_end_id = own_end_id
        if len(tokenizer) > text_size:
            raise ValueError(
                f"the text tokenizer has {len(tokenizer)} ids, the language model only {text_size}: they do not match"
            )

    @classmethod
    def for_config(
        cls, config: SemHiTokMLLMConfig, text_tokenizer: Any, chat_template: str | None = None
    ) -> SemHiTokMLLMProcessor:
        """The processor of a model: ``for_config(model.config, text_tokenizer)``."""
        vocabulary = config.vocabulary
        return cls(
            TokenizerImageProcessor(size=config.tokenizer_config.image_size),
            text_tokenizer,
            text_size=vocabulary.text_size,
            visual_size=vocabulary.visual_size,
            image_tokens=vocabulary.image_tokens,
            context_length=config.context_length,
            codes_per_token=vocabulary.codes_per_token,
            own_begin_id=vocabulary.own_begin_id,
            own_end_id=vocabulary.own_end_id,
            chat_template=chat_template,
        )

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> SemHiTokMLLMProcessor:
        """Load the processor of a checkpoint: a folder, a hub id, or the name of one bundled with the package."""
        load = tried(super().from_pretrained)
        return load_without_foreign_code(load, builtin_checkpoint(pretrained_model_name_or_path), **kwargs)

    @property
    def vocabulary(self) -> Vocabulary:
        """The id layout."""
        return Vocabulary(
            text_size=self.text_size,
            visual_size=self.visual_size,
            image_tokens=self.image_tokens,
            codes_per_token=self.codes_per_token,
            own_begin_id=self.own_begin_id,
            own_end_id=self.own_end_id,
        )

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: None = None,
        audio: None = None,
        *,
        generation_mode: GenerationMode = "text",
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        padding: bool | str | None = True,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare one text or several, with their images.

        Args:
            images: one for each ``<image>``, in order: a single image, a list for all texts, or a list of lists, one per text.
                Paths, bytes, PIL images or uint8 arrays. Without images (None), ``<image>`` is text.
            text: one text or several, which may be chats from ``apply_chat_template``.
            videos, audio: not supported, but passed by the pipelines of transformers.
            generation_mode: "image" appends the image begin id, after which the model generates an image.
            add_special_tokens: begin with the text tokenizer's begin-of-text id, if it has one; chats begin as their template says.
            split_special_tokens: read control tokens in the text as text, as is right for what users type; chats do so anyway.
            padding: True or "longest" pads to the longest text, "max_length" to ``max_length`` (by default the context); False or
                "do_not_pad" keeps lists of different lengths, which requires return_tensors None.
            truncation: True shortens texts to ``max_length``, but never cuts off an image.
            max_length: number of tokens that a text may have.
            return_tensors: "pt", or None for lists of ids.

        Returns:
            input_ids and attention_mask (B,L), and with images pixel_values (images,3,H,W) in [-1,1].

        Raises:
            ValueError: a text is empty or longer than ``max_length`` or the context, or the numbers of images and ``<image>`` differ.
        """
        if videos is not None or audio is not None:
            raise ValueError("videos and audio are not supported, only text and images")
        if text is None:
            raise ValueError(f"text is missing: pass a prompt, with {IMAGE} in place of images")
        texts = [text] if isinstance(text, str) else list(text)
        plain = images is None
        rows = [self._segments(each, split=split_special_tokens, plain=plain) for each in texts]
        given = in_order(images, [sum(part.text.count(IMAGE_PLACE) for part in row) for row in rows])
        beginnings = [self._beginning_of(each, add_special_tokens) for each in texts]
        rows = [
            [*beginning, *(each for ids, _ in self.segment_ids(row) for each in ids)]
            for beginning, row in zip(beginnings, rows, strict=True)
        ]
        begin = [self.vocabulary.image_begin_id] if generation_mode == "image" else []
        room = None if max_length is None else max_length - len(begin)
        side, placeholder = getattr(self.tokenizer, "truncation_side", "right"), self.vocabulary.placeholder_id
        rows = [truncate(row, room, truncation, side=side, placeholder=placeholder) + begin for row in rows]
        for row in rows:
            if len(row) > self.context_length:
                raise ValueError(
                    f"a text has {len(row)} tokens, the context of the language model is {self.context_length}"
                )
        length = padded_length(rows, padding, max_length, self.context_length)
        data: dict[str, Any] = {
            "input_ids": [[self.pad_id] * (length - len(row)) + row for row in rows],
            "attention_mask": [[0] * (length - len(row)) + [1] * len(row) for row in rows],
        }
        features = BatchFeature(data, tensor_type=return_tensors)
        if given:
            features["pixel_values"] = self.image_processor(given, return_tensors="pt")["pixel_values"]
        return features

    @property
    def pad_id(self) -> int:
        """The id that pads shorter rows on the left; its attention mask is 0."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(each for each in candidates if each is not None)

    def token_ids(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Ids of one text, which may be a chat; each ``<image>`` becomes begin, N placeholders, end.

        Raises:
            ValueError: the text is empty, contains one of the image marks, or holds bytes that are not UTF-8.
        """
        parts = self.segment_ids(self._segments(text, split=split_special_tokens))
        return [*self._beginning_of(text, add_special_tokens), *(each for ids, _ in parts for each in ids)]

    def segment_ids(self, segments: Sequence[Segment]) -> list[tuple[list[int], bool]]:
        """Ids of each segment, with begin, N placeholders and end for images, and whether it is to be learned as an answer."""
        marks, vocabulary = self.marks, self.vocabulary
        span = [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * self.image_tokens, vocabulary.image_end_id]
        return [
            ([place for each in ids for place in (span if each == marks.image_id else (each,))], answer)
            for ids, (_, answer) in zip(marks.encode(segments), segments, strict=True)
        ]

    def plain_text(self, text: str) -> Segment:
        """A text without images or control tokens, whatever it says."""
        return Segment(self.marks.check(text))

    def beginning(self) -> list[int]:
        """A list of the begin-of-text id, or an empty list if the text tokenizer adds none."""
        return _beginning(self.tokenizer)

    def _beginning_of(self, text: str, add_special_tokens: bool) -> list[int]:
        return self.beginning() if add_special_tokens and not isinstance(text, ChatText) else []

    def _segments(self, text: str, *, split: bool, plain: bool = False) -> tuple[Segment, ...]:
        """A text in segments; ``split`` and ``plain`` tell whether control tokens and ``<image>`` in it are text."""
        own = [each for each in (self.own_begin_id, self.own_end_id) if each is not None]
        image_marks = self.tokenizer.convert_ids_to_tokens(own)
        return text_segments(text, self.marks, image_marks, split=split, plain=plain)

    def post_process_multimodal_output(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        generation_mode: GenerationMode | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Turn the output of ``generate`` into texts and images.

        Args:
            generated_outputs: "text": ids (B,L). "image": images (B,3,H,W) in [-1,1] from ``decode_image_tokens``.
                "interleaved": ids (B,L).
            skip_special_tokens: omit the text tokenizer's special tokens.
            generation_mode: "text" (also for None), "image" or "interleaved".
            kwargs: for the text tokenizer's ``decode``.

        Returns:
            "text": a text for each row, without its images. "image": PIL images. "interleaved": for each row a list of texts and
            ids of images (N), which ``decode_image_tokens`` takes as a batch.
        """
        if generation_mode == "image":
            return self.image_processor.postprocess(generated_outputs)
        kwargs["skip_special_tokens"] = skip_special_tokens
        rows = [torch.as_tensor(row) for row in generated_outputs]
        if generation_mode == "interleaved":
            return [texts_and_images(self.vocabulary, self.tokenizer, row, kwargs) for row in rows]
        vocabulary, decode = self.vocabulary, self.tokenizer.decode
        return [decode(row[kinds_of(vocabulary, row) == TEXT].tolist(), **kwargs) for row in rows]

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Ids (B,L) -> a text for each row, without its images."""
        return self.post_process_multimodal_output(generated_outputs, skip_special_tokens, **kwargs)


def _beginning(text_tokenizer: Any) -> list[int]:
    found = list(text_tokenizer("")["input_ids"])
    return found[:1] if found[:1] == [text_tokenizer.bos_token_id] else []
