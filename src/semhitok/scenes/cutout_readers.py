"""Candidate cut-outs of each fetched source: file, concept, category, licence, author.

They are filtered by name and folder; pixels are checked later. Excluded are stars, jigsaw and flowchart shapes, icon themes,
buttons, flags, logos, maps, playing cards, patterns, road-sign and safety-sign collections, letters and digits, coins and
weapons; untagged files and the two under the GPL in openclipart; emoji symbols.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semhitok.scenes.naming import canonical, clean_title, english, singular
from semhitok.storage.catalogue import package
from semhitok.storage.fetch import is_fetched, source_folder

CATEGORIES = (
    "animal", "plant", "food", "drink", "person", "face", "body part", "clothing", "vehicle", "building", "landscape",
    "sky",
    "game", "celebration", "music", "tool", "office item", "electronic device", "household item",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """An image that may become a cut-out.

    Attributes:
        path: file on disk.
        source: package name, which also determines the drawing style.
        concept: lower-case singular noun phrase.
        category: one of CATEGORIES.
        style: "photo", "clip-art", "emoji" or "emoji-3d".
        licence: licence of this image.
        author: author if the source names one, otherwise "".
    """

    path: Path
    source: str
    concept: str
    category: str
    style: str
    licence: str
    author: str


def candidates(cache: Path) -> Iterator[Candidate]:
    """Candidates of all cut-out sources in the cache, in a fixed order."""
    if is_fetched("openclipart-png", cache) and is_fetched("openclipart-svg", cache):
        yield from _openclipart(cache)
    if is_fetched("emoji-datasource-google", cache):
        yield from _emoji(cache)
    if is_fetched("tuxpaint-stamps-default", cache):
        yield from _tuxpaint(cache)


# --- openclipart ---

_CLIPART_DROPPED = re.compile(
    r"shapes|computer/(icons|buttons|diagrams|network|folders|connectors|bb_)|buttons|special|logos|decorations|"
    r"signs_and_symbols/(?!weather|clocks)|recreation/(games|religion)|geography/(?!astronomy)|tools/weapons|"
    r"people/(clothing/pantyhose|stickmen)|transportation/(roadsigns|aiga)|education/(?!books)"
)
_CLIPART_CATEGORIES = {
    "animals": "animal", "plants": "plant", "food/beverages": "drink", "food": "food", "people/clothing": "clothing",
    "people/bodypart": "body part", "people/smilies": "face", "people": "person", "transportation": "vehicle",
    "buildings/furniture":
    "household item", "buildings": "building", "signs_and_symbols/weather": "sky", "geography/astronomy": "sky",
    "signs_and_symbols/clocks": "household item", "recreation/holiday": "celebration",
    "recreation/party": "celebration",
    "recreation/music": "music", "recreation": "game", "tools": "tool", "science": "tool", "office": "office item",
    "education":
    "office item", "computer": "electronic device", "electronics": "electronic device", "containers": "household item",
}  # fmt: skip


def _openclipart(cache: Path) -> Iterator[Candidate]:
    """Candidates whose names consist of known words, since titles contain jokes, abbreviations and other languages."""
    known = _known_words(cache)
    for candidate in _all_openclipart(cache):
        if all(singular(word) in known for word in re.findall(r"[a-z]+", candidate.concept) if len(word) > 2):
            yield candidate


def _known_words(cache: Path) -> frozenset[str]:
    """Words of emoji names, of stamp captions and of keywords of at least two images."""
    words: list[str] = []
    names = source_folder("emoji-datasource-google", cache) / "package/emoji.json"
    if names.is_file():
        words += re.findall(r"[a-z]+", " ".join(entry["name"] for entry in json.loads(names.read_text())).lower())
    stamps = source_folder("tuxpaint-stamps-default", cache) / "usr/share/tuxpaint/stamps"
    for path in stamps.rglob("*.txt"):
        words += re.findall(r"[a-z]+", (path.read_text("utf-8", "replace").splitlines() or [""])[0].lower())
    keywords: Counter[str] = Counter()
    for path in (source_folder("openclipart-svg", cache) / "usr/share/openclipart/svg").rglob("*.svg"):
        if not path.is_symlink():
            listed = " ".join(re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", path.read_text("utf-8", "replace"))).lower()
            keywords.update(set(re.findall(r"[a-z]+", listed)))
    words += [word for word, count in keywords.items() if count >= 2]
    return frozenset(singular(word) for word in words)


def _all_openclipart(cache: Path) -> Iterator[Candidate]:
    root = source_folder("openclipart-png", cache) / "usr/share/openclipart/png"
    tags = source_folder("openclipart-svg", cache) / "usr/share/openclipart/svg"
    for path in sorted(root.rglob("*.png")):
        inside = path.relative_to(root)
        name = inside.as_posix()
        twin = tags / inside.with_suffix(".svg")
        if path.is_symlink() or _CLIPART_DROPPED.match(name) or not twin.is_file():
            continue
        title, author, licence = _svg_tags(twin)
        if (
            "publicdomain" not in licence.lower().replace("/", "") or author == "John Cliff"
        ):  # untagged, GPL; road signs
            continue
        category = next((kind for folder, kind in _CLIPART_CATEGORIES.items() if name.startswith(folder + "/")), "")
        concept = english(title) if "Rollandin" in author else clean_title(title, _file_words(inside.stem, author))
        if (
            concept and category and author not in ("yves GUILLOU", "Yutaka Kachi", "Nicolas Clementz")
        ):  # French safety signs, stick men
            yield Candidate(path, "openclipart-png", concept, category, "clip-art", "public domain", author)


def _svg_tags(path: Path) -> tuple[str, str, str]:
    text = path.read_text("utf-8", "replace")
    work = re.search(r"<cc:Work.*?</cc:Work>", text, re.S)
    work = work.group(0) if work else ""
    title = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", work, re.S)
    author = re.search(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", work, re.S)
    licence = re.search(r'<cc:license[^>]*rdf:resource="([^"]*)"', work)
    return (
        html.unescape(title.group(1)).strip() if title else "",
        html.unescape(author.group(1)).strip() if author else "",
        licence.group(1) if licence else "",
    )


def _file_words(stem: str, author: str) -> str:
    """The file name without the author's name, which the collection appends cut to length
    ('red_flower_jean_victor_ba_01')."""
    words = re.sub(r"[\d.]+", " ", stem).replace("_", " ").replace("-", " ").split()
    authors = re.findall(r"[a-z]+", author.lower())
    kept = []
    for word in words:
        if any(len(word) >= 2 and name.startswith(word.lower()) for name in authors) or word.lower() == "ganson":
            break
        kept.append(word)
    return " ".join(kept)


# --- emoji ---

_EMOJI_CATEGORIES = {
    "animal": "animal", "plant": "plant", "drink": "drink", "dishware": "household item", "food": "food",
    "cat-face": "face",
    "monkey-face": "face", "face": "face", "hand": "body part", "body-parts": "body part", "person": "person",
    "family": "person",
    "clothing": "clothing", "transport": "vehicle", "place-building": "building", "place-religious": "building",
    "place-other":
    "building", "place": "landscape", "hotel": "household item", "sky & weather": "sky", "time": "household item",
    "event": "celebration",
    "award-medal": "celebration", "game": "game", "sport": "game", "arts & crafts": "game",
    "musical-instrument": "music", "music": "music",
    "sound": "music", "computer": "electronic device", "phone": "electronic device",
    "light & video": "electronic device", "lock": "tool",
    "medical": "tool", "science": "tool", "tool": "tool", "book-paper": "office item", "mail": "office item",
    "money": "office item",
    "office": "office item", "writing": "office item", "household": "household item", "other-object": "household item",
    "heart": "celebration",
}  # fmt: skip
_EMOJI_DROPPED = re.compile(r"cjk|katakana|squared|symbol|ideograph|silhouette")


def _emoji(cache: Path) -> Iterator[Candidate]:
    folder = source_folder("emoji-datasource-google", cache) / "package"
    fluent = source_folder("@lobehub/fluent-emoji-3d", cache) / "package/assets"
    found = sorted(fluent.glob("*.webp")) if is_fetched("@lobehub/fluent-emoji-3d", cache) else []
    three_dimensional = {_code_point(path.stem): path for path in found}
    for entry in sorted(json.loads((folder / "emoji.json").read_text()), key=lambda item: item["unified"]):
        kind = entry["subcategory"]
        if entry["category"] in ("Flags", "Symbols", "Component") or kind in ("emotion", "person-symbol"):
            continue
        name = entry["name"].lower()
        category = next((label for prefix, label in _EMOJI_CATEGORIES.items() if kind.startswith(prefix)), "")
        if not category or _EMOJI_DROPPED.search(name):
            continue
        concept = _emoji_concept(name, kind)
        path = folder / "img/google/64" / entry["image"]
        if entry["has_img_google"] and path.is_file():
            yield Candidate(path, "emoji-datasource-google", concept, category, "emoji", "Apache-2.0", "Google")
        path = three_dimensional.get(_code_point(entry["unified"]))
        if path:
            yield Candidate(path, "@lobehub/fluent-emoji-3d", concept, category, "emoji-3d", "MIT", "Microsoft")


def _emoji_concept(name: str, kind: str) -> str:
    if name.startswith("clock face"):
        return "clock"
    if kind == "family" and ":" in name:
        return name.split(":")[0]
    name = (
        re.sub(r"[‘’'.]|^(black|white|heavy) |\(.*?\)|: .*|“|”", "", name)
        .replace("womans", "woman's")
        .replace("mans", "man's")
    )
    if kind.startswith("animal"):
        name = name.removesuffix(" face")
    return canonical(name.strip())


def _code_point(text: str) -> str:
    return re.sub(r"-fe0f", "", text.lower())


# --- Tux Paint stamps ---

_STAMP_DROPPED = re.compile(r"symbols/(?!faces)|town/(flags|roadsigns)|military|medical")
_STAMP_CATEGORIES = {
    "animals": "animal", "clothes": "clothing", "food": "food", "hobbies/music": "music", "hobbies": "game",
    "household/electronics":
    "electronic device", "household/tools": "tool", "household/arttools": "tool", "household": "household item",
    "naturalforces": "sky",
    "people/body_parts": "body part", "people": "person", "plants": "plant", "seasonal": "celebration", "space": "sky",
    "sports": "game",
    "town": "building", "vehicles": "vehicle", "symbols/faces": "face",
}  # fmt: skip


def _tuxpaint(cache: Path) -> Iterator[Candidate]:
    root = source_folder("tuxpaint-stamps-default", cache) / "usr/share/tuxpaint/stamps"
    licence = package("tuxpaint-stamps-default").licence
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        caption = path.with_suffix(".txt")
        if path.stem.endswith("_mirror") or _STAMP_DROPPED.match(name) or not caption.is_file():
            continue
        category = next((kind for folder, kind in _STAMP_CATEGORIES.items() if name.startswith(folder + "/")), "")
        first = (caption.read_text("utf-8", "replace").splitlines() or [""])[0]
        concept = clean_title(re.split(r"[.!,(—:]", first)[0].replace("’", "'"), "")
        if category and concept:
            style = "clip-art" if "cartoon" in name else "photo"
            yield Candidate(
                path, "tuxpaint-stamps-default", concept, category, style, licence, "Tux Paint contributors"
            )
