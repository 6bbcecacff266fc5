"""Conversations whose messages have image parts, as text language models take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# For language models without a template of their own.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def flattened(messages: Sequence[Mapping[str, Any]], placeholder: str) -> tuple[list[dict[str, str]], list[Any]]:
    """Messages whose contents are texts, with ``placeholder`` where images stand, and the images in order.

    An image part may do without its image, which then comes beside the text.

    Raises:
        ValueError: for a message without role or content, or a part that is neither text nor an image.
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
                case {"type": "image", **rest}:
                    texts.append(placeholder)
                    images += [rest[source] for source in ("image", "path", "url") if source in rest][:1]
                case _:
                    raise ValueError(
                        'a part of a message must be {"type": "text", "text": ...} or {"type": "image", "image": ...}, got '
                        f"{part!r}"
                    )
        plain.append({"role": message["role"], "content": "".join(texts)})
    return plain, images
