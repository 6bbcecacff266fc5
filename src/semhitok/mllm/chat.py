"""Messages of conversations, their template, and the assignment of images to their places."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from semhitok.data.message_parts import split_at_images
from semhitok.data.records import IMAGE, Role
from semhitok.mllm.chat_rendering import Message

# For language models without their own template.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def read_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[Any]]:
    """The messages of a conversation, and their images in order.

    Only parts of a message are images; ``<image>`` in its text is text. A part may omit its image, which is then passed
    separately.

    Raises:
        ValueError: a message has no role or content, its role is unknown, or a part is neither text nor an image.
    """
    found, images = [], []
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ValueError(f"a message needs role and content, got {message!r}")
        role = message["role"]
        if role not in get_args(Role):
            raise ValueError(f"the role of a message must be one of {', '.join(get_args(Role))}, got {role!r}")
        pieces, named = split_at_images(message["content"])
        images += named
        found.append(Message(role, pieces))
    return found, images


def default_template(text_tokenizer: Any, *, begins: bool) -> str:
    """The text tokenizer's own template, or "role: content" line by line, after the begin-of-text mark if texts have one."""
    own = getattr(text_tokenizer, "chat_template", None)
    if isinstance(own, dict):  # several by name
        own = own.get("default")
    return own or ("{{ bos_token }}" if begins else "") + DEFAULT_CHAT_TEMPLATE


def in_order(images: Any, places: list[int]) -> list[Any]:
    """All images in one list, in order; ``places`` is the number of image positions in each text.

    Raises:
        ValueError: the number of images differs from that of the positions.
    """
    if images is None:
        images = []
    elif isinstance(images, Image.Image | str | os.PathLike | bytes) or getattr(images, "ndim", 0) == 3:
        images = [images]
    elif isinstance(images, np.ndarray | Tensor):
        images = list(images)
    if any(isinstance(each, list | tuple) for each in images):
        if len(images) != len(places):
            raise ValueError(f"images hold lists for {len(images)} texts, got {len(places)} texts")
        for index, (found, wanted) in enumerate(zip(images, places, strict=True)):
            if len(found) != wanted:
                raise ValueError(
                    f"text {index} has {wanted} {IMAGE} and {len(found)} images; the numbers must be equal"
                )
        return [image for found in images for image in found]
    if len(images) != sum(places):
        raise ValueError(
            f"the text has {sum(places)} {IMAGE} and {len(images)} images were given; the numbers must be equal"
        )
    return list(images)
