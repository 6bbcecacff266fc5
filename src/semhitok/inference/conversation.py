"""A conversation about images: questions that may refer to the ones before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import TextStreamer

from semhitok.data.records import IMAGE
from semhitok.inference.text_generation import AnswerOptions, generate_text
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.tokenizers.image_processing import ImageLike

ANSWER_OPTIONS = AnswerOptions(max_new_tokens=128, num_beams=None, repetition_penalty=None)
"""Greedy, but for what the language model asks for in its own generation configuration."""


class Conversation:
    """Questions about images, and the answers so far.

    Args:
        model, processor: as ``load_language_model`` gives them.
        images: shown before the first question, as in training; there may be none. Paths, bytes, PIL images, uint8 arrays.
        options: of all answers; drawn ones follow ``torch.manual_seed``.
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
        """Begin anew with other images."""
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
            on_text: called with each piece of the answer as soon as it is there; together they are the answer, but for blanks
                at its end.
            notice: told, in a sentence, when the conversation begins anew because it would outgrow the context.

        Raises:
            ValueError: the question is empty, names an image mark, or leaves no room for an answer.
        """
        context = self.processor.context_length
        # A long limit for answers must not make every question the first one: a quarter of the context is room enough.
        room = min(self.options.max_new_tokens, context // 4)
        if self.turns and self._length(question) + room > context:
            self.turns = []
            if notice is not None:
                notice(
                    f"the conversation would outgrow the context of {context} tokens, it begins anew with this question"
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
        self.turns.append((question, answer.replace(IMAGE, "")))  # words, not one more image
        return answer

    def _messages(self, question: str) -> list[dict[str, Any]]:
        turns = [message for asked, answer in self.turns for message in (_user(asked), _assistant(answer))]
        shown = [{"type": "image", "image": image} for image in self.images]
        first, *rest = [*turns, _user(question)]
        return [{**first, "content": [*shown, *first["content"]]}, *rest]

    def _length(self, question: str) -> int:
        """Tokens up to the answer."""
        if not question.strip():
            raise ValueError("the question is empty")
        text = self.processor.apply_chat_template(self._messages(question), add_generation_prompt=True)
        return len(self.processor.token_ids(text, add_special_tokens=False))


class _Pieces(TextStreamer):
    """Hands on an answer piece by piece, whole words at a time, without the blank that some templates leave before it."""

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


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
