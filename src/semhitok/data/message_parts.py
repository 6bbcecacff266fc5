"""Contents of messages in parts, as transformers' documentation writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semhitok.data.image_sources import decode_base64


def split_at_images(content: Any) -> tuple[tuple[str, ...], list[Any]]:
    """The pieces of text between a message's images, one more than there are images, and those images that its parts name.

    Args:
        content: a text, which is one piece whatever it says, or a list of parts: {"type": "text", "text": ...},
            {"type": "image", ...} with the image as "image", "path", "url" or "base64", or none, which is then passed
            separately, and {"type": "image_url", "image_url": ...}.

    Raises:
        ValueError: the content or a part is something else.
    """
    if isinstance(content, str):
        return (content,), []
    if not isinstance(content, Sequence):
        raise ValueError(f"a content must be a text or a list of parts, got a content of type {type(content).__name__}")
    pieces = [""]
    images: list[Any] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                pieces[-1] += text
            case {"type": "image", "base64": encoded}:
                pieces.append("")
                images.append(decode_base64(encoded))
            case {"type": "image", **rest}:
                pieces.append("")
                images += [rest[source] for source in ("image", "path", "url") if source in rest][:1]
            case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
                pieces.append("")
                images.append(url)
            case _:
                raise ValueError(
                    'a part of a message must be {"type": "text", "text": ...} or {"type": "image", "image": ...}, got '
                    f"{part!r}"
                )
    return tuple(pieces), images
