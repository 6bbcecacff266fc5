"""Records of the language model from JSON objects: texts, captions, image-generation prompts and chats.

A record is a line of a ``.jsonl`` file, or the ``.json`` of an image in a webdataset tar::

    text            {"text": ...}
    caption         {"image": "a.png", "caption": ...}   the image, then its caption; "captions" holds several
    text_to_image   the same fields: the caption, then the image
    chat            {"image": ..., "messages": [{"role": "user", "content": ...}, ...]}, where a content may be a list of parts
                    (see ``message_parts.py``); LLaVA's "conversations" of "from"
                    and "value", or "qa": [{"question": ..., "answer": ...}, ...]; "images" for several

In a tar the image is the sample's own and "image" is omitted. "kind" in the object takes precedence over the data set's kind.
"image_ids" with "tokenizer" in place of "image" are precomputed ids of one image and the fingerprint of their tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from semhitok.data.message_parts import split_at_images
from semhitok.data.records import IMAGE, Picture, Record, RecordError, RecordKind, Role, Turn, short

_LLAVA_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def parse_record(
    fields: Mapping[str, Any], kind: RecordKind, name: str, pictures: Sequence[Picture], choice: int
) -> Record:
    """A record from a JSON object.

    Args:
        fields: the object.
        kind: kind of the data set; ``fields["kind"]`` takes precedence over it.
        name: name of the record.
        pictures: its images.
        choice: any integer >= 0; decides between several captions and orders several questions.

    Raises:
        RecordError: text, image or answer is missing, or the numbers of images and ``<image>`` differ.
    """
    kind = fields.get("kind", kind)
    if kind not in get_args(RecordKind):
        raise RecordError(f"{name}: kind must be one of {', '.join(get_args(RecordKind))}, got {short(kind)}")
    if kind == "chat":
        return _chat(fields, name, tuple(pictures), choice)
    texts = _texts(fields, name, ("text",) if kind == "text" else ("captions", "caption", "text"))
    text = texts[choice % len(texts)]
    if kind == "text":
        return Record(kind, name, text)
    if len(pictures) != 1:
        raise RecordError(f"{name}: a record of kind {kind} needs one image, it has {len(pictures)}")
    return Record(kind, name, text, pictures=tuple(pictures))


def _texts(fields: Mapping[str, Any], name: str, wanted: Sequence[str]) -> list[str]:
    for field in wanted:
        found = fields.get(field)
        found = [found] if isinstance(found, str) else found
        if isinstance(found, list):
            texts = [text.strip() for text in found if isinstance(text, str) and text.strip()]
            if texts:
                _check_characters(texts, name)
                return texts
    raise RecordError(f"{name}: has no text in {', '.join(wanted)}")


def _chat(fields: Mapping[str, Any], name: str, pictures: tuple[Picture, ...], choice: int) -> Record:
    messages = _messages(fields, name, choice)
    while messages and messages[-1][0] != "assistant":  # turns after the last answer have no labels
        messages.pop()
    if not messages:
        raise RecordError(f"{name}: has no answer")
    # In texts, the mark is an image only if the record has images, none of which is a part of a message.
    marked = bool(pictures) and not any(isinstance(said, tuple) and len(said) > 1 for _, said in messages)
    pieces = [
        said if isinstance(said, tuple) else tuple(said.split(IMAGE)) if marked else (said,) for _, said in messages
    ]
    roles: list[Role] = [role for role, _ in messages]
    places = sum(map(len, pieces)) - len(pieces)
    if pictures and not places and "user" in roles:
        first = roles.index("user")
        pieces[first] = (*[""] * len(pictures), *pieces[first])
        places = len(pictures)
    if places != len(pictures):
        raise RecordError(f"{name}: has {len(pictures)} images and {places} {IMAGE}; the numbers must be equal")
    turns = tuple(Turn.of(role, said) for role, said in zip(roles, pieces, strict=True))
    for turn in turns:
        if not turn.text.strip():
            raise RecordError(f"{name}: has an empty {'answer' if turn.role == 'assistant' else 'message'}")
    _check_characters([turn.text for turn in turns], name)
    return Record("chat", name, description(fields), turns, pictures)


def description(fields: Mapping[str, Any]) -> str:
    """The captions of an image, joined; empty without captions."""
    try:
        return ", ".join(_texts(fields, "", ("captions", "caption")))
    except RecordError:
        return ""


_Said = tuple[Role, str | tuple[str, ...]]
"""Who says what: a text, which may have marks, or the pieces between images."""


def _messages(fields: Mapping[str, Any], name: str, choice: int) -> list[_Said]:
    try:
        if "messages" in fields:
            return [_said(each["role"], each["content"]) for each in fields["messages"]]
        if "conversations" in fields:
            return [_said(_LLAVA_ROLES[each["from"]], each["value"]) for each in fields["conversations"]]
        pairs = [(_said("user", each["question"]), _said("assistant", each["answer"])) for each in fields.get("qa", ())]
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{name}: a message needs role and content, a question its answer ({short(error)})"
        ) from error
    # All orders are equally likely, so that each question is sometimes the first, as when it is asked alone.
    order = np.random.default_rng(choice).permutation(len(pairs))
    return [said for index in order for said in pairs[index]]


def images_of_messages(fields: Mapping[str, Any]) -> list[Any]:
    """The images that parts of messages name, in order; none if the messages are not as they should be, which ``parse_record``
    tells."""
    try:
        contents = [message["content"] for message in fields.get("messages", ())]
        return [image for content in contents for image in split_at_images(content)[1]]
    except (KeyError, TypeError, ValueError):
        return []


def _said(role: Any, content: Any) -> _Said:
    if role not in get_args(Role):
        raise ValueError(f"a message of the role {short(role)}")
    pieces, _ = split_at_images(content)
    return role, content if isinstance(content, str) else pieces


def _check_characters(texts: Sequence[str], name: str) -> None:
    """JSON can spell half a surrogate pair, which is no character: no text tokenizer takes it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{name}: has half a surrogate pair in its text, at {error.start}") from error


def given_ids(fields: Mapping[str, Any], name: str) -> Picture:
    """The image ids in a record, with the fingerprint of their tokenizer.

    Raises:
        RecordError: the ids are not integers of shape (N,) or (N,C), or the fingerprint of their tokenizer is missing.
    """
    try:
        ids = np.asarray(fields["image_ids"])
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        ids = np.empty(0)
    if ids.ndim not in (1, 2) or ids.dtype.kind != "i" or not ids.size or ids.min() < 0:
        raise RecordError(
            f"{name}: image_ids must be whole numbers of shape (N,) or (N,C), none below 0, got {ids.dtype} {ids.shape}"
        )
    if not isinstance(fields.get("tokenizer"), str):
        raise RecordError(f"{name}: image_ids need the fingerprint of their tokenizer in the field tokenizer")
    return Picture(name, ids=ids.astype(np.int64), tokenizer=fields["tokenizer"])
