"""Text to ids such that only a chat template writes control ids, whatever a user types.

Control tokens are the text tokenizer's special tokens and the other added tokens that the chat template contains. Here they, and the
places of images, are spelled with Unicode noncharacters, which no text may contain; a copy of the text tokenizer knows the
control tokens by these spellings alone. What a template wrote is respelled, what a user typed is not, and both are
tokenized in one go, as the text tokenizer would: its rules for spaces at the beginning and after control tokens hold.

``split_special_tokens`` of transformers does not suffice: in vocabularies of whole words (WordLevel, Unigram), control tokens are
ordinary pieces as well, and text between control tokens, tokenized on its own, would begin with a space that is not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tokenizers import AddedToken, Tokenizer

IMAGE_PLACE = "\ufde2"
"""Stands for an image."""
_JOINT = "\ufde3"  # ids on both sides are independent
_OPEN, _CLOSE, _HIDDEN = "\ufdd0", "\ufde1", "\ufde4"
_DIGITS = [chr(0xFDD1 + digit) for digit in range(16)]
_RESERVED = re.compile("[\ufdd0-\ufdef\ud800-\udfff]")
_HIDDEN_CHARACTER = re.compile(f"{_HIDDEN}([{''.join(_DIGITS)}]+){_CLOSE}")
_NEVER = re.compile("(?!)")
FAR = 2**14
"""Characters beyond which a segment does not depend on those before it; else time would grow with their product."""


def without_noncharacters(text: str) -> str:
    """A text that a model wrote, with replacement characters for what no text may hold."""
    return _RESERVED.sub("\ufffd", text)


class Segment(NamedTuple):
    """A part of a text whose ids end where it ends.

    Attributes:
        text: in the spelling of ``ControlMarks``.
        answer: whether it is to be learned as an answer.
    """

    text: str
    answer: bool = False


class ControlMarks:
    """The control tokens of a text tokenizer.

    Args:
        text_tokenizer: from the library tokenizers, as nearly all in transformers are.
        names: control tokens by id.
        special: ids of those that are special tokens; the others may be part of an assistant's message, such as ``<think>``.

    Raises:
        ValueError: the text tokenizer is of another kind.
    """

    def __init__(self, text_tokenizer: Any, names: dict[int, str], special: frozenset[int]) -> None:
        self._spelled = {name: _spelling(index) for index, name in names.items()}
        self._written = _alternatives(self._spelled)
        self._typed = {
            answer: _Typed([name for index, name in names.items() if index in special or not answer])
            for answer in (False, True)
        }
        self._backend = _respelled(_backend(text_tokenizer), self._spelled)
        self.image_id, self._joint_id = (self._backend.encode(mark).ids[0] for mark in (IMAGE_PLACE, _JOINT))
        """``image_id`` stands for an image among encoded ids; it is no id of the language model."""
        if any(self._backend.token_to_id(_spelling(index)) != index for index in names):
            raise ValueError(
                "the ids of the text tokenizer's added tokens have gaps, so its control tokens cannot be told apart"
            )

    def check(self, text: str) -> str:
        """The text, which may hold any Unicode characters.

        Raises:
            ValueError: it holds noncharacters (U+FDD0 to U+FDEF) or half a surrogate pair.
        """
        if not text.isascii() and (found := _RESERVED.search(text)):
            begin = max(0, found.start() - 20)
            reason = "is not UTF-8" if found.group() < "\ue000" else "holds a noncharacter of Unicode"
            raise ValueError(f"the text {reason}: {text[begin : begin + 60]!r}")
        return text

    def hidden(self, text: str, *, answer: bool = False) -> str:
        """What a user typed (or with ``answer``, an assistant), for a template: no control token can be read in it.

        Ends that could become a control token together with what follows are hidden as well.
        """
        typed = self._typed[answer]
        places = {found.start() for found in typed.whole.finditer(self.check(text))}
        for ending in (text, text.rstrip()):
            for size in range(1, min(typed.longest, len(ending) + 1)):
                if ending[-size:] in typed.beginnings:
                    places.add(len(ending) - size)
        parts, position = [], 0
        for place in sorted(places):
            parts += [text[position:place], _HIDDEN, _digits(ord(text[place])), _CLOSE]
            position = place + 1
        return "".join([*parts, text[position:]])

    def respelled(self, text: str) -> str:
        """A text written by a template or a developer in the spelling of this class; hidden characters appear again."""
        return _shown(self._written.sub(lambda found: self._spelled[found.group()], text))

    def visible(self, text: str, image: str) -> str:
        """A text written by a template as people read it, with ``image`` in place of images."""
        return _shown(text).replace(IMAGE_PLACE, image)

    def encode(self, segments: Iterable[Segment]) -> list[list[int]]:
        """Ids of each segment, with ``image_id`` for images.

        All together they are those of the text tokenizer, unless one of its tokens would span two segments. The ids of
        the first segments do not depend on what follows them.
        """
        found: list[list[int]] = []
        before, ids_before = "", list[int]()  # since the last control token, as nothing reaches across one
        for text, _ in segments:
            ids = self._ids(before + text)
            if len(before) > FAR or ids[: len(ids_before)] != ids_before:
                before, ids_before = _JOINT, []
                ids = self._ids(before + text)
            found.append(ids[len(ids_before) :])
            before, ids_before = before + text, ids
            if (last := max(map(before.rfind, (_OPEN, IMAGE_PLACE, _JOINT)))) > 0:
                before = before[last:]
                ids_before = self._ids(before)
        return found

    def _ids(self, text: str) -> list[int]:
        ids = self._backend.encode(text, add_special_tokens=False).ids if text else []
        return [each for each in ids if each != self._joint_id]


_KNOWN: WeakKeyDictionary[Any, tuple[Any, ControlMarks]] = WeakKeyDictionary()


def control_marks(text_tokenizer: Any, chat_template: str) -> ControlMarks:
    """The control tokens of a text tokenizer under a chat template; computed once.

    Raises:
        ValueError: see ``ControlMarks``.
    """
    added = _backend(text_tokenizer).get_added_tokens_decoder()
    named = set(text_tokenizer.all_special_tokens)
    special = frozenset(index for index, token in added.items() if token.special or token.content in named)
    names = {
        index: token.content
        for index, token in added.items()
        if token.content and (index in special or (token.content in chat_template and not token.content.isspace()))
    }
    state = (names, special, len(added))
    known = _KNOWN.get(text_tokenizer)
    if known is None or known[0] != state:
        known = _KNOWN[text_tokenizer] = state, ControlMarks(text_tokenizer, names, special)
    return known[1]


class _Typed:
    """How to find control tokens in what was typed: whole ones, also overlapping, and beginnings at the end."""

    def __init__(self, names: Sequence[str]) -> None:
        first = "".join(re.escape(name[0]) for name in names)
        self.whole = re.compile(f"(?=[{first}])(?=(?:{_alternatives(names).pattern}))") if names else _NEVER
        self.longest = max(map(len, names), default=0)
        self.beginnings = {name[:size] for name in names for size in range(1, len(name))}


def _backend(text_tokenizer: Any) -> Tokenizer:
    backend = getattr(text_tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(
            f"the text tokenizer must be one of the library tokenizers (PreTrainedTokenizerFast), got {type(text_tokenizer).__name__}"
        )
    return backend


def _respelled(backend: Tokenizer, spelled: dict[str, str]) -> Tokenizer:
    """A copy that knows control tokens, images and joints by their spellings here, under the same ids."""
    state = json.loads(backend.to_str())
    state |= {"truncation": None, "padding": None, "post_processor": None, "decoder": None}
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spelled.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[spelled.get(piece, piece), score] for piece, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = spelled.get(model["unk_token"], model["unk_token"])
    for token in state["added_tokens"]:
        if token["content"] in spelled:
            token |= {"content": spelled[token["content"]], "normalized": False, "single_word": False}
    copy = Tokenizer.from_str(json.dumps(state))
    copy.add_special_tokens([AddedToken(mark, normalized=False) for mark in (IMAGE_PLACE, _JOINT)])
    return copy


def _alternatives(names: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of the names, as text tokenizers do."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else _NEVER


def _digits(number: int) -> str:
    return "".join(_DIGITS[int(digit, 16)] for digit in f"{number:x}")


def _spelling(index: int) -> str:
    return f"{_OPEN}{_digits(index)}{_CLOSE}"


def _shown(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        return chr(int("".join(f"{_DIGITS.index(digit):x}" for digit in found.group(1)), 16))

    return _HIDDEN_CHARACTER.sub(character, text)
