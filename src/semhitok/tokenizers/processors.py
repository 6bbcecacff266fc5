"""Processors with a text tokenizer: what its files say wrongly shows only once it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def tried(load: Callable[..., Any]) -> Callable[..., Any]:
    """A processor's ``from_pretrained`` that also tokenizes a text, so that wrong settings show while it is loaded."""

    def load_and_try(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        processor.tokenizer("a text")
        return loaded

    return load_and_try
