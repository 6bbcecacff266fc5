"""Text tokenizers that a run learns from its texts, and keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from semhitok import distributed
from semhitok.storage.atomic import atomic_directory, restore
from semhitok.storage.foreign_code import load_without_foreign_code

TextTokenizer = TypeVar("TextTokenizer", bound=PreTrainedTokenizerBase)


def learned_text_tokenizer(
    folder: Path, learn: Callable[[], TextTokenizer], load: Callable[[Path], TextTokenizer]
) -> TextTokenizer:
    """The text tokenizer stored in ``folder`` earlier in the run, or a new one, learned by the main rank.

    One that is not whole is learned again, from the same texts. It is always the stored one that is returned, since a text
    tokenizer remembers that it was read, and exports it. Every rank must call it: the others wait for the main one.
    """

    def learn_unless_whole() -> bool:
        if _is_whole(folder, load):
            return False
        learned = learn()
        with atomic_directory(folder) as unfinished:
            learned.save_pretrained(unfinished)
        return True

    distributed.main_decides(learn_unless_whole)
    return load_without_foreign_code(load, folder)


def _is_whole(folder: Path, load: Callable[..., PreTrainedTokenizerBase]) -> bool:
    restore(folder)
    # Without its vocabulary a text tokenizer of CLIP's kind loads all the same, with two ids.
    if not all((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return False
    try:
        load_without_foreign_code(load, folder)
    except Exception:  # the library has no error of its own for a damaged file
        return False
    return True
