"""The tab *Ask*: a conversation about images, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from semhitok.data.images import load_image
from semhitok.inference.conversation import Conversation
from semhitok.studio.workspace import Workspace

QUESTIONS = (
    "What kind of thing was put into the picture?",
    "Is there a dog in the picture?",
    "How many things are there?",
)
"""Questions that the page offers."""

Message = dict[str, str]
"""``role`` (user or assistant) and ``content``, as Gradio's chat shows it."""


@dataclass
class Chat:
    """A conversation in the page, and what it is about: another model or other images begin a new one."""

    about: tuple[str, tuple[str, ...]] = ("", ())
    conversation: Conversation | None = None
    messages: list[Message] = field(default_factory=list)


def ask(workspace: Workspace, chat: Chat, model: str, images: Sequence[str], question: str) -> Iterator[list[Message]]:
    """The conversation after each piece of the answer.

    Args:
        workspace: loads the language model.
        chat: the conversation so far; changed in place.
        model: name of the language model.
        images: paths of the images that are shown before the first question.
        question: the next question.

    Raises:
        ValueError: the question is empty or leaves no room for an answer, or an image cannot be read.
    """
    about = (model, tuple(images))
    if chat.conversation is None or chat.about != about:
        shown = [load_image(path, name=f"image {number}") for number, path in enumerate(images, 1)]
        chat.about, chat.messages = about, []
        chat.conversation = Conversation(*workspace.language_model(model), shown)
    notices: list[str] = []
    earlier = list(chat.messages)
    answer = ""
    pieces = chat.conversation.stream(question, notice=notices.append)
    for piece in pieces:
        answer += piece
        told = [{"role": "assistant", "content": f"({notice}.)"} for notice in notices]
        chat.messages = [*earlier, *told, _said("user", question), _said("assistant", answer)]
        yield chat.messages
    if not answer.strip():
        chat.messages = [*earlier, _said("user", question), _said("assistant", "(The model has no answer.)")]
        yield chat.messages


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}
