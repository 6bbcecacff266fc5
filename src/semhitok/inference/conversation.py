"""A conversation about images: questions that may refer to the ones before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from transformers import TextStreamer

from semhitok.inference.text_generation import AnswerOptions, generate_text
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.control_marks import without_noncharacters
from semhitok.tokenizers.image_processing import ImageLike

ANSWER_OPTIONS = AnswerOptions(max_new_tokens=128, num_beams=None, repetition_penalty=None)
"""Greedy decoding, except for the settings of the language model's own generation configuration."""


class Conversation:
    """Questions about images, and the answers so far.

    Args:
        model, processor: from ``load_language_model``.
        images: shown before the first question, as in training; may be empty. Paths, bytes, PIL images or uint8 arrays.
        options: for all answers; sampling follows ``torch.manual_seed``.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        images: Sequence[ImageLike] = (),
        options: AnswerOptions = ANSWER_OPTIONS,
    ) -> None:
        self.model, self.processor, self.options = model, processor, options
        self.images, self.turns = list(images), list[tuple[str, str]]()

    def show(self, images: Sequence[ImageLike]) -> None:
        """Start a new conversation about other images."""
        self.images, self.turns = list(images), []

    def ask(
        self,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> str:
        """The answer, which later questions may refer to.

        Args:
            question: without images, which are shown already.
            on_text: called with each piece of the answer as soon as it is generated; joined, they are the answer up to
                trailing whitespace.
            notice: called with a sentence when the conversation starts over because it would exceed the context.

        Raises:
            ValueError: the question is empty or leaves no room for an answer.
        """
        context = self.processor.context_length
        # A large max_new_tokens must not restart the conversation at every question: a quarter of the context is enough.
        room = min(self.options.max_new_tokens, context // 4)
        if self.turns and self._length(question) + room > context:
            self.turns = []
            if notice is not None:
                notice(
                    f"the conversation would exceed the context of {context} tokens, so it starts over with this question"
                )
        length = self._length(question)
        if length + 1 > context:
            raise ValueError(
                f"the question and its images have {length} tokens, which leaves no room for an answer in the context of "
                f"{context}"
            )
        inputs = self.processor.apply_chat_template(
            self._messages(question), add_generation_prompt=True, tokenize=True, return_dict=True
        ).to(self.model.device)
        streamer = None if on_text is None else _Pieces(self.processor.tokenizer, on_text)
        (found,) = generate_text(self.model, self.processor, inputs, self.options, streamer=streamer)
        answer = found.text.strip()
        self.turns.append((question, without_noncharacters(answer)))
        return answer

    def stream(self, question: str, *, notice: Callable[[str], None] | None = None) -> Iterator[str]:
        """The answer piece by piece, as soon as each is generated; arguments and errors are those of ``ask``.

        If the iterator is closed early, generation stops, and the conversation is as if the question had not been asked.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        closed, failures = Event(), list[Exception]()

        def hand_on(piece: str) -> None:
            if closed.is_set():
                raise _ClosedError
            pieces.put(piece)

        def answer() -> None:
            try:
                self.ask(question, on_text=hand_on, notice=notice)
            except Exception as error:
                failures.append(error)
            finally:
                pieces.put(None)

        turns, complete = list(self.turns), False
        thread = Thread(target=answer, name="answer", daemon=True)
        thread.start()
        try:
            yield from iter(pieces.get, None)
            complete = True
        finally:
            closed.set()
            thread.join()
            if not complete:
                self.turns = turns
        if failures:
            raise failures[0]

    def _messages(self, question: str) -> list[dict[str, Any]]:
        turns = [
            message
            for asked, answer in self.turns
            for message in (_user(asked), {"role": "assistant", "content": answer})
        ]
        shown = [{"type": "image", "image": image} for image in self.images]
        first, *rest = [*turns, _user(question)]
        return [{**first, "content": [*shown, *first["content"]]}, *rest]

    def _length(self, question: str) -> int:
        """Tokens up to the answer."""
        if not question.strip():
            raise ValueError("the question is empty")
        text = self.processor.apply_chat_template(self._messages(question), add_generation_prompt=True)
        return len(self.processor.token_ids(text))


class _ClosedError(Exception):
    """Nobody reads on."""


class _Pieces(TextStreamer):
    """Passes on an answer in whole words, without the leading space that some templates produce."""

    def __init__(self, text_tokenizer: Any, on_text: Callable[[str], None]) -> None:
        super().__init__(text_tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text, self.begun = on_text, False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        text = text if self.begun else text.lstrip()
        if text:
            self.begun = True
            self.on_text(text)


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}
