"""Concept names from the titles of clip-art, and the groups of names that splits keep together."""

from __future__ import annotations

import html
import re
import unicodedata

from semhitok.scenes.naming_tables import (
    ALIASES,
    ALWAYS_PLURAL,
    DRAWING_WORDS,
    GENERIC_HEADS,
    IRREGULAR_PLURALS,
    ITALIAN,
    SAME_GROUP,
    SINGULAR_ALREADY,
    UNCLEAR,
)

MAXIMUM_WORDS = 4

# Titles of whole collections, for which the file name is more specific.
_COLLECTION = re.compile(
    r"^$|clip ?arts?\b|icons?\b|iconset|collection|submission|sibmission|unsorted|untitled|road signs|map symbols|"
    r"hash\(|rollandin",
    re.I,
)
# Where the head noun of a name ends.
_CUT = re.compile(
    r"\s+(?:with|of|in|on|at|from|behind|by|and|for|over|under|without|wearing|having|holding|,)\s+|[,:;(]"
)


def clean_title(title: str, file_name: str) -> str:
    """A concept name from a title, or from the file name if the title names a collection; '' if neither is suitable."""
    for text in (title, file_name):
        text = html.unescape(text)
        text = text.split(" - ")[0] if " - " in text and not text.lower().startswith("clip") else text
        if not _COLLECTION.search(text):
            name = _plain(text)
            if name:
                return "" if name in UNCLEAR else name
    return ""


def english(title: str) -> str:
    """The concept of an Italian title, '' if it is not in the table."""
    words = _plain(title, keep_all=True).split()
    for length in (2, 1):
        found = ITALIAN.get(" ".join(words[:length]))
        if found is not None:
            return canonical(found)
    return ""


def _plain(text: str, keep_all: bool = False) -> str:
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"\(.*?\)|&#\d+;", " ", text).replace("_", " ").replace("/", " ")
    text = re.sub(r"(?<=[a-z])(?=\d)|#", " ", text)
    split = (word.strip("-.'!?\"") for word in re.sub(r"[^a-z0-9' -]", " ", text).split())
    short = ("ox", "of", "in", "on")
    words = [word for word in split if (len(word) > 2 or word in short) and not re.search(r"\d", word)]
    if not keep_all:
        words = [word for word in words if word not in DRAWING_WORDS]
        if words[:1] in (["some"], ["pair"], ["couple"]):
            words = words[2:] if words[1:2] == ["of"] else words[1:]
        if words[:1] in (["two"], ["three"], ["four"]):
            return ""
        if not 1 <= len(words) <= MAXIMUM_WORDS or words[-1] in ("of", "in", "on", "and", "with", "one", "two"):
            return ""
    return canonical(" ".join(words))


def canonical(name: str) -> str:
    """Map synonyms to one name with the last word in the singular: 'red apples' and 'red apple' are one concept."""
    name = " ".join(name.split())
    name = ALIASES.get(name, name)
    *first, last = name.split() or [""]
    name = " ".join([*first, singular(last)])
    return ALIASES.get(name, name)


def singular(word: str) -> str:
    """English singular by rules; relevant irregular words are listed."""
    if word in SINGULAR_ALREADY or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word[:-2] in SINGULAR_ALREADY:
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "sses", "toes")):
        return word[:-2]
    if word in ("leaves", "knives", "loaves", "wolves"):
        return {"leaves": "leaf", "knives": "knife", "loaves": "loaf", "wolves": "wolf"}[word]
    return word[:-1]


def group(concept: str) -> str:
    """The group that splits keep together: the head noun ('wolf' of 'grey wolf'), or the whole name if it is generic."""
    trunk = _CUT.split(concept)[0].split() or [concept]
    head = ALIASES.get(singular(trunk[-1]), singular(trunk[-1]))
    return concept if head in GENERIC_HEADS else SAME_GROUP.get(head, head)


def content_words(concept: str) -> frozenset[str]:
    """Singular words of a name without generic ones, which two sides of a split must not share."""
    words = (singular(word) for word in re.split(r"[^a-z]+", concept) if len(word) > 2)
    return frozenset(word for word in words if word not in GENERIC_HEADS and word not in DRAWING_WORDS)


def with_article(concept: str) -> str:
    """'a horse', 'an owl', 'scissors': the name as a noun phrase."""
    last = _CUT.split(concept)[0].split()[-1]
    if last in ALWAYS_PLURAL:
        return concept
    vowel_sound = concept[0] in "aeiou" and not concept.startswith(("uni", "eu", "one"))
    return f"{'an' if vowel_sound or concept.startswith('hour') else 'a'} {concept}"


def plural(concept: str) -> str:
    """'horses', 'boxes', 'hearts on fire': several of them."""
    cut = _CUT.search(concept)
    if cut:
        return plural(concept[: cut.start()]) + concept[cut.start() :]
    *first, last = concept.split()
    if last in IRREGULAR_PLURALS:
        last = IRREGULAR_PLURALS[last]
    elif last in ALWAYS_PLURAL:
        return concept
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh", "z")):
        last += "es"
    else:
        last += "s"
    return " ".join([*first, last])
