"""Texts of developers and users in the spelling of ``ControlMarks``."""

from __future__ import annotations

from collections.abc import Sequence

from semhitok.data.records import IMAGE
from semhitok.mllm.chat_rendering import ChatText
from semhitok.mllm.control_marks import IMAGE_PLACE, ControlMarks, Segment


def text_segments(
    text: str, marks: ControlMarks, image_marks: Sequence[str], *, split: bool, plain: bool
) -> tuple[Segment, ...]:
    """A text in segments; a chat keeps its own.

    Args:
        text: any text.
        marks: of the text tokenizer.
        image_marks: the language model's own begin and end of an image, if it has them.
        split: whether control tokens in the text are text.
        plain: whether ``<image>`` in it is text.

    Raises:
        ValueError: the text is empty, contains one of the image marks, or holds what is no Unicode character.
    """
    if not text.strip():
        raise ValueError("the prompt is empty: a text of at least one character is needed")
    if isinstance(text, ChatText):
        return text.segments
    pieces = [marks.check(text)] if plain else marks.check(text).split(IMAGE)
    if split:
        return (Segment(IMAGE_PLACE.join(pieces)),)
    if any(mark in piece for mark in image_marks for piece in pieces):
        raise ValueError(f"images are written as {IMAGE}, got a text that contains the image marks: {text!r}")
    return (Segment(IMAGE_PLACE.join(map(marks.respelled, pieces))),)
