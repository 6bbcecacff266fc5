"""Settings of the server."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TOKENS_VARIABLE = "SEMHITOK_SERVER_TOKENS"
"""Environment variable with bearer tokens, separated by spaces or commas."""


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        batch_size: answers and images that are generated at once; images that are tokenized at once.
        queue_size: further requests that may wait.
        max_bytes: length of the body of a request.
        max_pixels: pixels of an image.
        max_images: images of a request, in it or generated for it.
        max_tokens: new tokens of an answer.
        max_seconds: from the moment a request is accepted until its answer is complete.
        receive_seconds: time in which a request must arrive, and in which an idle connection must send one.
        max_open: requests whose bodies are read or whose answers are sent at the same time.

    Raises:
        ValueError: a value below 1 (``queue_size``: below 0).
    """

    batch_size: int = 16
    queue_size: int = 64
    max_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    max_images: int = 16
    max_tokens: int = 1024
    max_seconds: float = 120.0
    receive_seconds: float = 30.0
    max_open: int = 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "queue_size" else 1
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    @property
    def capacity(self) -> int:
        """Requests that are accepted at once."""
        return self.batch_size + self.queue_size

    @property
    def max_buffered(self) -> int:
        """Bytes of all bodies that are read at the same time."""
        return max(16 * self.max_bytes, 256_000_000)


class BearerTokens:
    """Tokens of which a client must send one; only their digests are kept.

    Args:
        tokens: without any, every client is let in.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [_digest(token) for token in tokens]

    @classmethod
    def read(cls, file: Path | None) -> BearerTokens:
        """Tokens of a file, one on each line, or of the environment variable if no file is given.

        Raises:
            ValueError: the file is missing or has no tokens, or a token is not printable ASCII.
        """
        if file is None:
            tokens = os.environ.get(TOKENS_VARIABLE, "").replace(",", " ").split()
        else:
            try:
                tokens = file.read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8"
                raise ValueError(f"{file}: the tokens cannot be read: {reason}") from None  # the cause may quote one
            if not tokens:
                raise ValueError(f"{file} holds no tokens: write one on each line")
        place = TOKENS_VARIABLE if file is None else file
        if not all(token.isascii() and token.isprintable() for token in tokens):
            raise ValueError(f"{place}: a token must consist of printable ASCII characters")
        return cls(tokens)

    @property
    def required(self) -> bool:
        """Whether there are any."""
        return bool(self._digests)

    def accept(self, header: bytes | None) -> bool:
        """Whether the header ``Authorization`` carries one of them; takes the same time for every wrong token."""
        scheme, _, token = (header or b"").partition(b" ")
        found = hashlib.sha256(token.strip()).digest()
        matches = [hmac.compare_digest(found, digest) for digest in self._digests]  # all of them, always
        return not self._digests or (scheme.lower() == b"bearer" and any(matches))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
