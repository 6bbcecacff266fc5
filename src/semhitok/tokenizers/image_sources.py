"""Images that a text names or contains: data URLs, base64, and addresses on the network, which are refused."""

from __future__ import annotations

import base64
import binascii
import os
from urllib.parse import unquote_to_bytes


def resolve_image_source(source: str | os.PathLike[str]) -> str | os.PathLike[str] | bytes:
    """The bytes of a data URL (``data:image/png;base64,...``), or a path as it is.

    Raises:
        ValueError: the data URL is damaged, or the image lies on the network.
    """
    scheme = os.fspath(source)[:8].lower()
    if scheme.startswith(("http://", "https://")):
        raise ValueError(
            f"images are not fetched from the network, got {_shortened(os.fspath(source))}: download it first, and pass a path, "
            "the bytes of the file, a data URL or a PIL image"
        )
    if not scheme.startswith("data:"):
        return source
    header, comma, payload = os.fspath(source).partition(",")
    if not comma:
        raise ValueError(f"a data URL of an image is data:image/png;base64,..., got {_shortened(header)}")
    return decode_base64(payload) if header.lower().endswith(";base64") else unquote_to_bytes(payload)


def decode_base64(text: str) -> bytes:
    """The bytes of an image in base64, with line breaks or without, or as a data URL.

    Raises:
        ValueError: it is not base64.
    """
    if not isinstance(text, str):
        raise ValueError(f"an image in base64 must be a text, got {type(text).__name__}")
    if text[:5].lower() == "data:":
        found = resolve_image_source(text)
        assert isinstance(found, bytes)
        return found
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an image in base64 cannot be decoded: {error}, got {_shortened(text)}") from error


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
