"""Scenes in words: what is asked follows from what is said, answers cannot be guessed, and any chat can be read alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.data.records_on_disk import png, write_tar

from semhitok.data.records import Record
from semhitok.scenes.naming import plural
from semhitok.scenes.words import FAMILIAR, SceneWords

CATEGORIES = {
    "dog": "animal", "cat": "animal", "owl": "animal", "horse": "animal", "bear": "animal", "polar bear": "animal",
    "car": "vehicle", "bus": "vehicle", "axe": "tool", "hammer": "tool", "wrench": "tool", "drum": "music",
    "violin": "music", "apple": "food", "banana": "food", "pear": "food", "tree": "plant", "cactus": "plant",
}  # fmt: skip
GROUNDS = ("green grass", "a wall")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
READ = 1500


@pytest.fixture(scope="module")
def chats() -> list[tuple[str, list[tuple[str, str]]]]:
    """The description and the questions with answers of each chat."""
    source = SceneWords(CATEGORIES, GROUNDS, seed=3)
    return [taken_apart(source.read(index, index + 17)) for index in range(READ)]


def taken_apart(record: Record) -> tuple[str, list[tuple[str, str]]]:
    description, first = record.turns[0].text.split("\n")
    texts = [first, *(turn.text for turn in record.turns[1:])]
    assert [turn.role for turn in record.turns] == ["user", "assistant"] * (len(texts) // 2)
    return description, list(zip(texts[::2], texts[1::2], strict=True))


def said_number(description: str, concept: str) -> int:
    """The number of a concept in the first caption, read by eye."""
    caption = re.split(" in front of |, an? [^,]* (?:above|below|to the) ", description)[0]
    for word, number in NUMBERS.items():
        if re.search(rf"\b{word} {plural(concept)}\b", caption):
            return number
    return int(re.search(rf"\ban? {concept}\b", caption) is not None)


def test_every_answer_follows_from_the_description(chats: list[tuple[str, list[tuple[str, str]]]]):
    kinds: Counter[str] = Counter()
    for description, asked in chats:
        assert asked
        for question, answer in asked:
            if found := re.fullmatch(r"Is there an? (.*) in the picture\?", question):
                assert answer == ("yes" if said_number(description, found[1]) else "no"), (description, question)
            elif found := re.fullmatch(r"How many (.*) are there\?", question):
                (concept,) = (each for each in CATEGORIES if plural(each) == found[1])
                assert NUMBERS[answer] == said_number(description, concept), (description, question)
            elif found := re.fullmatch(
                r"Is the (.*?) (to the left or to the right of|above or below) the (.*)\?", question
            ):
                words = answer if found[2].startswith("above") else f"to the {answer} of"
                assert re.search(rf"\ban? {found[1]} {words} an? {found[3]}(,|$)", description), (description, question)
            else:
                assert question == "What kind of thing was put into the picture?"
                shown = [concept for concept in CATEGORIES if said_number(description, concept)]
                assert answer in {CATEGORIES[concept] for concept in shown}
            kinds[question.split()[0] + question.split()[1]] += 1
    assert min(kinds[each] for each in ("Isthere", "Isthe", "Howmany", "Whatkind")) > READ / 25


def test_answers_cannot_be_guessed(chats: list[tuple[str, list[tuple[str, str]]]]):
    answers = Counter(answer for _, asked in chats for _, answer in asked)
    assert answers["yes"] == answers["no"]
    assert answers["left"] == pytest.approx(answers["right"], rel=0.15)
    assert answers["above"] == pytest.approx(answers["below"], rel=0.15)
    assert answers["one"] == pytest.approx(answers["two"], rel=0.4)
    # Not from the order in which the relations are told either: a question is as often about the subject of the first one.
    first = Counter()
    for description, asked in chats:
        told = re.findall(r"an? ([a-z ]*?) (?:above|below|to the (?:left|right) of) an? ([a-z ]*?)(?:,|$)", description)
        for question, _ in asked:
            found = re.match(r"Is the (.*?) (?:to the left or|above or)", question)
            if found and len(told) == 2:
                first[found[1] == told[0][0]] += 1
    assert first[True] == pytest.approx(first[False], rel=0.2)


def test_chats_about_pairs_ask_for_positions_alone_and_half_of_them_about_familiar_concepts():
    many = {f"thing{number:03d}": "animal" for number in range(100)}
    shown, placed = [], 0
    source = SceneWords(many, pairs=1.0)
    for index in range(600):
        turns = source.read(index, 0).turns
        placed += all("Is the thing" in turn.text for turn in turns if turn.role == "user")
        shown.append(set(re.findall(r"thing\d{3}", turns[0].text.split("\n")[0])))
    assert placed > 570  # in the others neither thing is clearly beside or above the other
    assert {len(concepts) for concepts in shown} == {2}
    common = {concept for concept, _ in Counter(each for concepts in shown for each in concepts).most_common(FAMILIAR)}
    assert 0.45 < sum(concepts <= common for concepts in shown) / len(shown) < 0.6
    assert set().union(*shown) == set(many)


def test_a_share_of_the_chats_is_about_pairs():
    asked = [SceneWords(CATEGORIES, pairs=0.4).read(index, 0).turns for index in range(600)]
    alone = [all("Is the " in turn.text for turn in turns if turn.role == "user") for turns in asked]
    assert 0.33 < sum(alone) / 600 < 0.47
    with pytest.raises(ValueError, match=r"pairs must lie in \[0, 1\], got 1\.5"):
        SceneWords(CATEGORIES, pairs=1.5)


def test_grounds_are_mentioned_in_half_of_the_scenes_if_there_are_any(chats: list[tuple[str, list[tuple[str, str]]]]):
    named = [" in front of " in description for description, _ in chats]
    assert 0.45 < sum(named) / READ < 0.55
    assert " in front of " not in SceneWords(CATEGORIES).read(0, 0).turns[0].text


def test_a_chat_depends_on_seed_number_and_choice_alone():
    one, other = SceneWords(CATEGORIES, GROUNDS), SceneWords(dict(reversed(CATEGORIES.items())), GROUNDS)
    assert one.fingerprint == other.fingerprint
    assert [one.read(index, 5) for index in (7, 3)] == [other.read(index, 5) for index in (7, 3)]
    assert taken_apart(one.read(9, 1))[0] == taken_apart(one.read(9, 2))[0]
    assert SceneWords(CATEGORIES, GROUNDS, seed=1).read(3, 5) != one.read(3, 5)
    assert SceneWords(CATEGORIES, GROUNDS, seed=1).fingerprint != one.fingerprint != SceneWords(CATEGORIES).fingerprint


def test_concepts_and_grounds_of_a_data_set(tmp_path: Path):
    texts = ["a dog in front of a wall", "a dog", "two cats in front of green grass"]
    write_tar(
        tmp_path / "a-00000.tar", [{".png": png(0), ".json": json.dumps({"caption": text}).encode()} for text in texts]
    )
    with pytest.raises(ValueError, match=r"need the concepts in the dataset\.json of composed scenes"):
        SceneWords.of_data_set(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"concepts": CATEGORIES}))
    assert SceneWords.of_data_set(tmp_path).fingerprint == SceneWords(CATEGORIES, ("a wall", "green grass")).fingerprint
    (tmp_path / "dataset.json").write_text(json.dumps({"concepts": {"dog": "animal"}}))
    with pytest.raises(ValueError, match="at least two concepts, got 1"):
        SceneWords.of_data_set(tmp_path)
