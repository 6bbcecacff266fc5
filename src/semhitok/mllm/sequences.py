"""Records to ids and labels of the language model.

    text            [bos] text eos
    caption         [bos] begin image end caption eos
    text_to_image   [bos] prompt begin image end eos, or for a fraction of them begin image end: an image without a prompt,
                    as needed for classifier-free guidance (10 % in the paper)
    chat            the text tokenizer's chat template

They match the processor's prompts: "<image>" for a caption, a prompt for an image, a chat for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semhitok.data.packing import IGNORED, TokenSequence
from semhitok.data.records import IMAGE, Picture, Record, RecordError, Turn, caption_in_place_of_image
from semhitok.mllm.processing import SemHiTokMLLMProcessor
from semhitok.types import Learn


class SequenceBuilder:
    """Turns records into sequences.

    Args:
        processor: processor of the model.
        learn: "everything" labels all text and images (pretraining); "answers" only assistants' turns, captions and generated
            images (fine-tuning), not users' turns and images. Plain text is always labelled.
        unconditional: fraction of text_to_image records whose prompt is dropped.
        described: fraction of chats about one captioned image in which captions replace the image, so that answering can be
            learned from words before images have a meaning.
        max_length: plain texts are truncated to this length; other records that are longer are bad.
        tokenizer: fingerprint of the image tokenizer; None rejects precomputed ids.

    Raises:
        ValueError: unconditional or described is not in [0, 1].
    """

    def __init__(
        self,
        processor: SemHiTokMLLMProcessor,
        *,
        learn: Learn,
        unconditional: float,
        max_length: int,
        tokenizer: str | None,
        described: float = 0.0,
    ) -> None:
        for name, share in (("unconditional", unconditional), ("described", described)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share}")
        self.processor, self.learn, self.unconditional, self.described = processor, learn, unconditional, described
        self.max_length, self.tokenizer = max_length, tokenizer
        vocabulary = processor.vocabulary
        self._begin, self._end = vocabulary.image_begin_id, vocabulary.image_end_id
        self._span = [self._begin, *[vocabulary.placeholder_id] * vocabulary.image_tokens, self._end]
        end_of_text = processor.tokenizer.eos_token_id
        self._eos = [] if end_of_text is None else [end_of_text]
        self._bos = processor.beginning()

    def __call__(self, record: Record, chance: float) -> TokenSequence:
        """The sequence of a record; ``chance`` in [0,1) decides whether its prompt is dropped.

        Raises:
            RecordError: the text cannot be used, or ids of images have the wrong shape or range.
            ValueError: ids of images come from another tokenizer.
        """
        self._check(record.pictures)
        everything = self.learn == "everything"
        if record.kind == "chat":
            chat = _with_caption(record) if chance < self.described else record
            return self._sequence(self._chat(chat), chat)
        text = self._text(record.text, record)
        if record.kind == "text":
            whole = [*self._bos, *text, *self._eos][: self.max_length]
            return self._sequence([(whole, True)], record)
        if record.kind == "caption":
            return self._sequence([([*self._bos, *self._span], everything), ([*text, *self._eos], True)], record)
        if chance < self.unconditional:
            return self._sequence([(self._span, True)], record)
        return self._sequence([([*self._bos, *text], everything), ([*self._span, *self._eos], True)], record)

    def _sequence(self, parts: Sequence[tuple[list[int], bool]], record: Record) -> TokenSequence:
        ids = np.array([each for part, _ in parts for each in part], dtype=np.int64)
        learned = np.array([learn for part, learn in parts for _ in part], dtype=bool)
        if not learned[1:].any():
            raise RecordError(f"{record.name}: it has no labels to learn")
        return TokenSequence(ids, np.where(learned, ids, IGNORED), record.pictures)

    def _text(self, text: str, record: Record) -> list[int]:
        """Ids of a text without images."""
        ids = list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        if {self._begin, self._end} & set(ids):
            raise RecordError(f"{record.name}: contains the image marks, images are written as {IMAGE}")
        return ids

    def _chat(self, record: Record) -> list[tuple[list[int], bool]]:
        """The chat in pieces with their labels: context, and assistants' turns up to the end of the turn."""
        parts: list[tuple[list[int], bool]] = []
        everything, done = self.learn == "everything", ""
        for index, turn in enumerate(record.turns):
            if turn.role != "assistant":
                continue
            asked, answered = (
                self._template(record.turns[:index], True),
                self._template(record.turns[: index + 1], False),
            )
            if not asked.startswith(done) or not answered.startswith(asked):
                raise ValueError("the chat template rewrites earlier turns when a new one is added: pass another one")
            parts.append((self._with_images(asked[len(done) :], record), everything))
            parts.append((self._with_images(answered[len(asked) :], record), True))
            done = answered
        return parts

    def _template(self, turns: Sequence[Turn], ask: bool) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=ask)
        assert isinstance(text, str)
        return text

    def _with_images(self, text: str, record: Record) -> list[int]:
        pieces = [self._text(piece, record) for piece in text.split(IMAGE)]
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = [*ids, *self._span, *piece]
        return ids

    def _check(self, pictures: Sequence[Picture]) -> None:
        vocabulary = self.processor.vocabulary
        several = vocabulary.codes_per_token > 1
        shape = (vocabulary.image_tokens, *([vocabulary.codes_per_token] if several else []))
        for picture in pictures:
            if picture.ids is None:
                continue
            if picture.tokenizer != self.tokenizer:
                raise ValueError(
                    f"{picture.name}: its ids come from the tokenizer {picture.tokenizer}, this model has "
                    f"{self.tokenizer}: tokenize the images again"
                )
            if picture.ids.shape != shape or not 0 <= picture.ids.min() <= picture.ids.max() < vocabulary.visual_size:
                raise RecordError(
                    f"{picture.name}: ids of shape {shape} in [0, {vocabulary.visual_size}) are needed, got "
                    f"{picture.ids.shape} in [{picture.ids.min()}, {picture.ids.max()}]"
                )


def _with_caption(record: Record) -> Record:
    """The chat with captions in place of the user's image; chats without a captioned image are returned unchanged."""
    generated = any(IMAGE in turn.text for turn in record.turns if turn.role == "assistant")
    if not record.text or len(record.pictures) != 1 or generated:
        return record
    turns = tuple(Turn(turn.role, caption_in_place_of_image(turn.text, record.text)) for turn in record.turns)
    return Record(record.kind, record.name, turns=turns)
