"""Conversations as texts of a chat template, in segments: what stands before an answer, the answer, what follows.

Training and generation share it. Segments end where an answer begins and where it ends, so that the ids before an answer are those from
which it is generated later, whatever the text tokenizer makes of the text around (see ``ControlMarks.encode``). Where an answer begins and
ends is told by the template's own ``{% generation %}`` marks, or else by comparing what it writes without the answer and with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from transformers.utils.chat_template_utils import render_jinja_template

from semhitok.data.records import IMAGE
from semhitok.mllm.bounded_templates import check_rendering, told_in_a_sentence
from semhitok.mllm.control_marks import IMAGE_PLACE, ControlMarks, Segment

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as in transformers

Spans = dict[int, tuple[int, int]]
"""Where answers stand in a text: begin and end, by the number of the message."""


class Message(NamedTuple):
    """One message of a conversation; images stand between the pieces of its text."""

    role: str
    pieces: tuple[str, ...]


class ChatText(str):
    """A conversation as a template writes it, with ``<image>`` in place of images.

    Attributes:
        segments: the same with what the template wrote told from what was typed; a processor that is given this text uses
            them.
    """

    segments: tuple[Segment, ...]

    def __new__(cls, text: str, segments: tuple[Segment, ...]) -> Self:
        found = super().__new__(cls, text)
        found.segments = segments
        return found

    def __getnewargs__(self) -> tuple[str, tuple[Segment, ...]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self), self.segments


class ChatRenderer:
    """Writes conversations under one template.

    Args:
        marks: of the text tokenizer.
        template: in Jinja; its contents are texts, in which images are noncharacters.
        variables: what else the template uses, such as ``bos_token``.
    """

    def __init__(self, marks: ControlMarks, template: str, variables: Mapping[str, Any]) -> None:
        self.marks, self.template, self.variables = marks, template, variables
        self._tells = bool(_GENERATION.search(template))

    def prompt(self, messages: Sequence[Message], *, ask: bool = False, unfinished: bool = False) -> ChatText:
        """A conversation as it stands, before an answer (``ask``) or in the middle of the last message (``unfinished``).

        Raises:
            ValueError: the template cannot be applied, or leaves out an image.
        """
        plain = self._plain(messages)
        text, spans = self._write(plain, ask=ask, unfinished=unfinished)
        if not self._tells:
            spans = self._spans(plain[:-1] if unfinished else plain, text)
            if unfinished and len(plain) > 1:
                asked, _ = self._write(plain[:-1], ask=True)
                if text.startswith(asked):
                    spans[len(plain) - 1] = len(asked), len(text)
        return self._chat(text, spans, set(spans), messages)

    def lessons(self, messages: Sequence[Message]) -> list[ChatText]:
        """A conversation that ends with an answer, to learn from: usually one text with all answers.

        If the template changes earlier messages when later ones are added (as Qwen3's drops thoughts), there are several texts:
        each answer is to be learned in the last one that has it as it is generated, after what it is generated from.

        Raises:
            ValueError: the template cannot be applied, leaves out an image, or no answer continues its prompt.
        """
        plain = self._plain(messages)
        text, spans = self._write(plain)
        if self._tells:
            return [self._chat(text, spans, set(spans), messages)]
        added = self._added_spans(plain, text)
        if added is not None and added:
            return [self._chat(text, added, set(added), messages)]
        written = self._written(plain)
        chats: list[ChatText] = []
        missing = set(written)
        for end in sorted(written, reverse=True):
            if end in missing:
                text = written[end][1]
                spans = _unchanged(written, text)
                chats.append(self._chat(text, spans, missing & set(spans), messages[: end + 1]))
                missing -= set(spans)
        if not chats:
            raise ValueError(
                "the chat template writes answers that do not continue its generation prompt: pass another template, or one "
                "with {% generation %} marks"
            )
        return chats[::-1]

    def _plain(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        return [
            {
                "role": role,
                "content": IMAGE_PLACE.join(self.marks.hidden(piece, answer=role == "assistant") for piece in pieces),
            }
            for role, pieces in messages
        ]

    def _write(self, plain: list[dict[str, str]], *, ask: bool = False, unfinished: bool = False) -> tuple[str, Spans]:
        known = {"tools": None, "documents": None, **self.variables}
        check_rendering(self.template, {**known, "messages": plain, "add_generation_prompt": ask})
        with told_in_a_sentence():
            (text,), found = render_jinja_template(
                [plain],
                chat_template=self.template,
                add_generation_prompt=ask,
                continue_final_message=unfinished,
                return_assistant_tokens_mask=self._tells,
                **self.variables,
            )
        if not self._tells:
            return text, {}
        told: list[tuple[int, int]] = found[0]  # pyright: ignore[reportAssignmentType]
        return text, {number: (begin, min(end, len(text))) for number, (begin, end) in enumerate(told)}

    def _spans(self, plain: list[dict[str, str]], text: str) -> Spans:
        """Where answers stand that the template writes now as it wrote them when they were given."""
        added = self._added_spans(plain, text)
        return _unchanged(self._written(plain), text) if added is None else added

    def _added_spans(self, plain: list[dict[str, str]], text: str) -> Spans | None:
        """The same where every exchange adds its own text to that of the others, and None where it does not.

        Each exchange is written after the first one only: the time is proportional to the length of the conversation.
        """
        spans: Spans = {}
        first: list[dict[str, str]] = []
        base, begin, position = "", 0, 0
        for end in _answers(plain):
            try:
                asked, _ = self._write([*first, *plain[begin:end]], ask=True)
                answered, _ = self._write([*first, *plain[begin : end + 1]])
            except ValueError:
                return None
            added = answered[len(base) :]
            if not (asked.startswith(base) and answered.startswith(asked) and text.startswith(added, position)):
                return None
            spans[end] = position + len(asked) - len(base), position + len(added)
            position += len(added)
            if not first:
                first, base = plain[: end + 1], answered
            begin = end + 1
        return spans

    def _written(self, plain: list[dict[str, str]]) -> dict[int, tuple[str, str]]:
        """What the template writes before and up to each answer when it is given; without answers that do not continue it."""
        found = {}
        for end in _answers(plain):
            asked, answered = self._write(plain[:end], ask=True)[0], self._write(plain[: end + 1])[0]
            if answered.startswith(asked):
                found[end] = asked, answered
        return found

    def _chat(self, text: str, spans: Spans, learned: set[int], messages: Sequence[Message]) -> ChatText:
        images = sum(len(message.pieces) - 1 for message in messages)
        if text.count(IMAGE_PLACE) != images:
            raise ValueError(f"the chat template writes {text.count(IMAGE_PLACE)} of {images} images")
        segments, position = [], 0
        for number, (begin, end) in sorted(spans.items(), key=lambda span: span[1]):
            segments += [Segment(text[position:begin]), Segment(text[begin:end], number in learned)]
            position = end
        segments.append(Segment(text[position:]))
        respelled = (Segment(self.marks.respelled(part), answer) for part, answer in segments if part)
        return ChatText(self.marks.visible(text, IMAGE), tuple(respelled))


def _answers(plain: Sequence[dict[str, str]]) -> list[int]:
    """Numbers of the assistant's messages that answer something."""
    return [number for number, message in enumerate(plain) if number and message["role"] == "assistant"]


def _unchanged(written: Mapping[int, tuple[str, str]], text: str) -> Spans:
    return {end: (len(asked), len(answered)) for end, (asked, answered) in written.items() if text.startswith(answered)}
