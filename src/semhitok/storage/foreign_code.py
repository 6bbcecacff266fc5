"""Loading with transformers without ever running Python code that a checkpoint brings along."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from semhitok.storage.configuration import read_configuration, sentence_about


def load_without_foreign_code(
    load: Callable[..., Any], place: str | os.PathLike[str], *args: Any, **kwargs: Any
) -> Any:
    """Call a ``from_pretrained`` of transformers with ``trust_remote_code=False``: nothing is run, and nobody is asked.

    Left unset, transformers asks on standard input whether to run what ``auto_map`` names, and a typed ``y`` runs it.

    Args:
        load: called with ``place`` and the other arguments.
        place: a folder or a hub id.

    Raises:
        OSError: a file is missing.
        ValueError: the checkpoint cannot be loaded without its own code, or anything in its files is wrong.
    """
    folder = Path(place) / (kwargs.get("subfolder") or "")
    with sentence_about(place):
        with suppress(FileNotFoundError, NotADirectoryError):  # a hub id, or a tokenizer alone
            read_configuration(folder / "config.json")
        try:
            return load(place, *args, **(kwargs | {"trust_remote_code": False}))
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"{place} can only be loaded with Python code of its own, which is never run: a checkpoint of an "
                "architecture that transformers knows is needed"
            ) from error
