"""Positions of images in texts and conversations, and the assignment of images to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from semhitok.data.records import IMAGE
from semhitok.tokenizers.image_sources import decode_base64

# For language models without their own template.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def flattened(messages: Sequence[Mapping[str, Any]], placeholder: str) -> tuple[list[dict[str, str]], list[Any]]:
    """Messages with plain text contents and ``placeholder`` in place of images, and the images in order.

    An image part may omit its image, which is then passed separately.

    Raises:
        ValueError: a message has no role or content, or a part is neither text nor an image.
    """
    plain, images = [], []
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ValueError(f"a message needs role and content, got {message!r}")
        content, texts = message["content"], []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match part:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": "image", "base64": encoded}:
                    texts.append(placeholder)
                    images.append(decode_base64(encoded))
                case {"type": "image", **rest}:
                    texts.append(placeholder)
                    images += [rest[source] for source in ("image", "path", "url") if source in rest][:1]
                case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
                    texts.append(placeholder)
                    images.append(url)
                case _:
                    raise ValueError(
                        'a part of a message must be {"type": "text", "text": ...} or {"type": "image", "image": ...}, got '
                        f"{part!r}"
                    )
        plain.append({"role": message["role"], "content": "".join(texts)})
    return plain, images


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
