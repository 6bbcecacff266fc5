"""Records to ids and labels of the language model.

    text            [bos] text eos
    caption         [bos] begin image end caption eos
    text_to_image   [bos] prompt begin image end eos, or for a fraction of them begin image end: an image without a prompt,
                    as needed for classifier-free guidance (10 % in the paper)
    chat            the chat template, see ``ChatRenderer.lessons``

Texts of records are text, whatever they say: only the chat template writes control tokens. The sequences match the processor's prompts: "<image>" for a caption, a prompt for an image, a chat for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semhitok.data.packing import IGNORED, TokenSequence
from semhitok.data.records import Picture, Record, RecordError, Turn, caption_in_place_of_image
from semhitok.mllm.chat_rendering import ChatText, Message
from semhitok.mllm.control_marks import IMAGE_PLACE
from semhitok.mllm.processing import SemHiTokMLLMProcessor
from semhitok.types import Learn

SHORT = 2**16
"""Texts of so few characters are tokenized before their length is judged."""
_MARGIN = 64  # tokens of a long text beyond those that are kept: where a text is cut, its last tokens may differ
MAX_ROWS = 64
"""One chat may fill so many rows: under a template that changes earlier messages, every answer needs a sequence of its own."""


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
        self._span = [
            vocabulary.image_begin_id,
            *[vocabulary.placeholder_id] * vocabulary.image_tokens,
            vocabulary.image_end_id,
        ]
        end_of_text = processor.tokenizer.eos_token_id
        self._eos = [] if end_of_text is None else [end_of_text]
        self._bos = processor.beginning()
        self._longest_token = max(map(len, processor.tokenizer.get_vocab()), default=1)

    def __call__(self, record: Record, chance: float) -> list[TokenSequence]:
        """The sequences of a record, usually one; ``chance`` in [0,1) decides whether its prompt is dropped.

        Raises:
            RecordError: the text cannot be used or does not fit, or ids of images have the wrong shape or range.
            ValueError: ids of images come from another tokenizer.
        """
        self._check(record.pictures)
        everything = self.learn == "everything"
        if record.kind == "chat":
            return self._chats(_with_caption(record) if chance < self.described else record)
        if record.kind == "text":
            whole = [*self._bos, *self._first_ids(record), *self._eos][: self.max_length]
            return [self._sequence([(whole, True)], record)]
        self._check_size([record.text], record)
        text = self._text(record.text, record)
        if record.kind == "caption":
            return [self._sequence([([*self._bos, *self._span], everything), ([*text, *self._eos], True)], record)]
        if chance < self.unconditional:
            return [self._sequence([(self._span, True)], record)]
        return [self._sequence([([*self._bos, *text], everything), ([*self._span, *self._eos], True)], record)]

    def _sequence(
        self, parts: Sequence[tuple[list[int], bool]], record: Record, images: int | None = None
    ) -> TokenSequence:
        """The ids of the parts, with labels where they are to be learned, and the first ``images`` of the record."""
        ids = np.array([each for part, _ in parts for each in part], dtype=np.int64)
        learned = np.array([learn for part, learn in parts for _ in part], dtype=bool)
        if not learned[1:].any():
            raise RecordError(f"{record.name}: it has no labels to learn")
        return TokenSequence(ids, np.where(learned, ids, IGNORED), record.pictures[:images])

    def _text(self, text: str, record: Record) -> list[int]:
        """Ids of a text without images."""
        try:
            ((ids, _),) = self.processor.segment_ids([self.processor.plain_text(text)])
        except ValueError as error:
            raise RecordError(f"{record.name}: {error}") from error
        return ids

    def _first_ids(self, record: Record) -> list[int]:
        """Ids of a plain text, at least as many as are kept, without tokenizing all of a long one."""
        text, wanted = record.text, self.max_length + _MARGIN
        size = max(SHORT, wanted * self._longest_token)
        while size < len(text):
            ids = self._text(text[:size], record)
            if len(ids) >= wanted:
                return ids
            size *= 4  # the text tokenizer drops much of it, such as white space
        return self._text(text, record)

    def _check_size(self, texts: Sequence[str], record: Record) -> None:
        """Refuse what cannot fit into a row before time is spent on it.

        No token has more characters than the longest, and every message has a token, unless it is only an image.
        """
        images, characters = len(record.pictures), sum(map(len, texts))
        tokens = max(len(texts) - images, characters / self._longest_token if characters > SHORT else 0)
        if tokens + images * len(self._span) > self.max_length:
            raise RecordError(
                f"{record.name}: {len(texts):,} messages of {characters:,} characters and {images} images do not fit into "
                f"the {self.max_length} tokens of a row"
            )

    def _chats(self, record: Record) -> list[TokenSequence]:
        """The sequences of a chat: usually one, see ``ChatRenderer.lessons``.

        Of several, the last one has labels everywhere if everything is to be learned, the others for their answers alone.
        """
        self._check_size([piece for turn in record.turns for piece in turn.pieces], record)
        try:
            chats = self.processor.renderer().lessons([Message(turn.role, turn.pieces) for turn in record.turns])
            if sum(map(len, chats)) > max(SHORT, self._longest_token * self.max_length) * MAX_ROWS:
                raise ValueError(f"its {len(chats)} answers need more than {MAX_ROWS} rows under this chat template")
            return [self._chat(chat, record, last=chat is chats[-1]) for chat in chats]
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(f"{record.name}: {error}") from error

    def _chat(self, chat: ChatText, record: Record, *, last: bool) -> TokenSequence:
        everything = last and self.learn == "everything"
        parts = [(ids, answer or everything) for ids, answer in self.processor.segment_ids(chat.segments)]
        return self._sequence(parts, record, sum(part.text.count(IMAGE_PLACE) for part in chat.segments))

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
    generated = any(len(turn.pieces) > 1 for turn in record.turns if turn.role == "assistant")
    if not record.text or len(record.pictures) != 1 or generated:
        return record
    turns = (Turn.of(turn.role, [caption_in_place_of_image(turn.pieces, record.text)]) for turn in record.turns)
    return Record(record.kind, record.name, turns=tuple(turns))
