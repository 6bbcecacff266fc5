"""Candidates from made-up source folders laid out as the packages lay theirs out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from semhitok.scenes.cutout_readers import CATEGORIES, candidates
from semhitok.storage.catalogue import package
from semhitok.storage.fetch import UNPACKED, source_folder

SVG = """<svg><metadata><rdf:RDF><cc:Work rdf:about=""><dc:title>{title}</dc:title><dc:subject><rdf:Bag>{words}</rdf:Bag>
</dc:subject><dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator>
<cc:license rdf:resource="{licence}"/></cc:Work></rdf:RDF></metadata></svg>"""
PUBLIC_DOMAIN = "http://web.resource.org/cc/PublicDomain"


def _source(cache: Path, name: str) -> Path:
    folder = source_folder(name, cache)
    folder.mkdir(parents=True)
    (folder / UNPACKED).write_text(package(name).sha256)
    return folder


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (8, 8)).save(path)


def _clip_art(cache: Path, name: str, title: str, author: str = "Jane", licence: str = PUBLIC_DOMAIN) -> None:
    _picture(source_folder("openclipart-png", cache) / "usr/share/openclipart/png" / f"{name}.png")
    tags = source_folder("openclipart-svg", cache) / "usr/share/openclipart/svg" / f"{name}.svg"
    tags.parent.mkdir(parents=True, exist_ok=True)
    words = "".join(f"<rdf:li>{word}</rdf:li>" for word in ("lion", "lime", "beer", "eagle", "drum", "cat", "dog"))
    tags.write_text(SVG.format(title=title, words=words, author=author, licence=licence))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in ("openclipart-png", "openclipart-svg"):
        _source(tmp_path, name)
    _clip_art(tmp_path, "animals/mammals/leo_01", "Lion (Cartoon)")
    _clip_art(tmp_path, "food/beverages/pint_01", "Beer")
    _clip_art(tmp_path, "animals/gatto_01", "Gatto nero", "Architetto Francesco Rollandin")
    _clip_art(tmp_path, "animals/dog_jane_01", "Various Cliparts")
    _clip_art(tmp_path, "animals/skoynk", "Skoynk")  # no word anybody else uses
    _clip_art(tmp_path, "shapes/stars/lion_01", "Lion")
    _clip_art(tmp_path, "animals/eagle_01", "Eagle", licence="http://creativecommons.org/licenses/GPL/2.0/")
    _clip_art(tmp_path, "animals/untagged", "Drum", licence="")
    return tmp_path


def test_openclipart(cache: Path) -> None:
    found = {candidate.concept: candidate for candidate in candidates(cache)}
    assert set(found) == {"lion", "beer", "cat", "dog"}
    assert [found[name].category for name in ("lion", "beer", "cat", "dog")] == ["animal", "drink", "animal", "animal"]
    assert found["lion"].author == "Jane"
    assert found["lion"].licence == "public domain"
    assert found["lion"].style == "clip-art"


def test_emoji_join_both_styles(tmp_path: Path) -> None:
    google, fluent = (_source(tmp_path, name) for name in ("emoji-datasource-google", "@lobehub/fluent-emoji-3d"))
    rows = [
        ("DOG FACE", "1F436", "Animals & Nature", "animal-mammal"),
        ("BLACK SCISSORS", "2702-FE0F", "Objects", "office"),
        ("WINKING FACE", "1F609", "Smileys & Emotion", "face-smiling"),
        ("Italy Flag", "1F1EE-1F1F9", "Flags", "country-flag"),
        ("HASH KEY", "0023-FE0F-20E3", "Symbols", "keycap"),
    ]
    entries = [
        {"name": name, "unified": code, "category": category, "subcategory": kind, "image": f"{code.lower()}.png", "has_img_google": True}
        for name, code, category, kind in rows
    ]  # fmt: skip
    (google / "package").mkdir()
    (google / "package/emoji.json").write_text(json.dumps(entries))
    for entry in entries:
        _picture(google / "package/img/google/64" / entry["image"])
    _picture(fluent / "package/assets/1f436.webp")
    _picture(fluent / "package/assets/2702.webp")  # without the variation selector
    found = [(candidate.concept, candidate.style, candidate.category) for candidate in candidates(tmp_path)]
    assert sorted(found) == [
        ("dog", "emoji", "animal"), ("dog", "emoji-3d", "animal"), ("scissors", "emoji", "office item"),
        ("scissors", "emoji-3d", "office item"), ("winking face", "emoji", "face"),
    ]  # fmt: skip


def test_stamps_need_a_caption(tmp_path: Path) -> None:
    root = _source(tmp_path, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    for name, caption in (
        ("animals/birds/owl", "A snowy owl."),
        ("food/cartoon/pie", "Pie!"),
        ("symbols/math/1", "One."),
    ):
        _picture(root / f"{name}.png")
        (root / f"{name}.txt").write_text(f"{caption}\nde.utf8=Eine Eule.\n")
    _picture(root / "animals/birds/silent.png")
    found = {(candidate.concept, candidate.style, candidate.category) for candidate in candidates(tmp_path)}
    assert found == {("snowy owl", "photo", "animal"), ("pie", "clip-art", "food")}
    assert {category for *_, category in found} <= set(CATEGORIES)


def test_absent_sources_are_no_error(tmp_path: Path) -> None:
    assert list(candidates(tmp_path)) == []
