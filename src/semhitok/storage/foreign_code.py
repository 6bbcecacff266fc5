"""Loading with transformers without ever running Python code that a checkpoint brings along."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def load_without_foreign_code(
    load: Callable[..., Any], place: str | os.PathLike[str], *args: Any, **kwargs: Any
) -> Any:
    """Call a ``from_pretrained`` of transformers with ``trust_remote_code=False``: nothing is run, and nobody is asked.

    Left unset, transformers asks on standard input whether to run what ``auto_map`` names, and a typed ``y`` runs it.

    Args:
        load: called with ``place`` and the other arguments.
        place: a folder or a hub id.

    Raises:
        ValueError: the checkpoint cannot be loaded without its own code.
    """
    try:
        return load(place, *args, **(kwargs | {"trust_remote_code": False}))
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{place} can only be loaded with Python code of its own, which is never run: a checkpoint of an architecture "
            "that transformers knows is needed"
        ) from error
