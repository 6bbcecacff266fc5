"""Chats about scenes in words alone: captions in place of the picture, questions, and nothing drawn.

Boxes are drawn at random and described and asked about like those of composed scenes, thousands of scenes a second. Some chats, or
all, ask nothing but where one of two things is, half of them about a few familiar concepts. A small language model has to learn that a
question about "the dog" is answered by the relation whose subject is the dog; from such chats alone it learns this in hundreds of steps,
among other questions or from a hundred concepts at once it stays at chance for thousands (docs/experiments.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from semhitok.data.record_sources import RecordTars
from semhitok.data.records import Record, RecordError, Turn, caption_in_place_of_image
from semhitok.data.sample import digest_of_lines
from semhitok.scenes.compose import NUMBERS, OBJECT_COUNTS, Scene, caption_of, relations_between
from semhitok.scenes.naming import content_words
from semhitok.scenes.placing import SIDE_RANGES, Box, SceneObject, pick
from semhitok.scenes.questions import (
    Question,
    captions,
    category_questions,
    count_text,
    existence_text,
    never_denied,
    position_questions,
)

FAMILIAR, FAMILIAR_SHARE = 8, 0.5  # concepts; share of the chats about pairs
COUNT_SHARES = (0.15, 0.45, 0.25, 0.15)  # of 1 to 4 things, of any concepts
REPEATED_SHARE = 0.25  # of the scenes with several things: these repeat a concept, for counting
ASKED_ONCE = 0.15  # of the single things, so that "one" is about as frequent an answer as "two"
PLAIN_SHARE = 0.5  # of the scenes, where grounds are known: these name none
SIDE = 120  # of the imagined square, in pixels
READ_FOR_GROUNDS = 2000  # records
GROUND = " in front of "


class SceneWords:
    """A ``RecordSource`` of chats without images; each is a pure function of (seed, index).

    Args:
        categories: category of each concept, at least two concepts.
        grounds: descriptions of photographs that captions mention; none for scenes on plain grounds.
        pairs: share of the chats that ask for nothing but the position of one of two things.
        count: number of chats.
        seed: seed of all chats.

    Raises:
        ValueError: there are fewer than two concepts, or the share is not in [0, 1].
    """

    def __init__(
        self,
        categories: Mapping[str, str],
        grounds: Sequence[str] = (),
        *,
        pairs: float = 0.4,
        count: int = 1_000_000,
        seed: int = 0,
    ) -> None:
        if not 0 <= pairs <= 1:
            raise ValueError(f"pairs must lie in [0, 1], got {pairs}")
        if len(categories) < 2:
            raise ValueError(f"questions about positions need at least two concepts, got {len(categories)}")
        self.categories, self.grounds, self.count, self.seed = dict(sorted(categories.items())), grounds, count, seed
        self.pairs = pairs
        self._concepts = tuple(self.categories)
        step = max(1, len(self._concepts) // FAMILIAR)
        self._familiar = self._concepts[::step][:FAMILIAR]
        self._words = {concept: content_words(concept) for concept in self._concepts}

    @classmethod
    def of_data_set(cls, folder: Path, *, pairs: float = 0.4, seed: int = 0) -> SceneWords:
        """Chats about the concepts and grounds of a set of composed scenes, whose images are not read.

        Raises:
            ValueError: the folder is no such set.
        """
        try:
            categories = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["concepts"]
            categories = {str(concept): str(category) for concept, category in categories.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder}: chats in words alone need the concepts in the dataset.json of composed scenes ({error!r})"
            ) from error
        return cls(categories, _grounds(RecordTars([folder], "caption")), pairs=pairs, seed=seed)

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        concepts = (f"{concept}: {category}" for concept, category in self.categories.items())
        return digest_of_lines(
            ["scenes in words", str(self.pairs), str(self.count), str(self.seed), *concepts, *self.grounds]
        )

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        return f"scene in words {index}"

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``; ``choice`` orders the questions."""
        random = np.random.default_rng((self.seed, index))
        pair = random.random() < self.pairs
        scene = self.scene(random, pair=pair, familiar=pair and random.random() < FAMILIAR_SHARE)
        asked = (position_questions(scene, random) if pair else []) or self.questions(scene, random)
        turns = []
        for place in np.random.default_rng(choice).permutation(len(asked)):
            turns += [Turn("user", asked[place].question), Turn("assistant", asked[place].answer)]
        first = caption_in_place_of_image(("", turns[0].text), ", ".join(captions(scene)))
        return Record("chat", self.name(index), turns=(Turn("user", first), *turns[1:]))

    def scene(self, random: np.random.Generator, *, pair: bool = False, familiar: bool = False) -> Scene:
        """A scene without pixels: concepts, boxes, relations, caption; of two different things if ``pair``, of familiar ones if so."""
        count = 2 if pair else OBJECT_COUNTS[pick(random, np.cumsum(COUNT_SHARES))]
        known = self._familiar if familiar else self._concepts
        order = [known[place] for place in random.permutation(len(known))[: 2 * count]]
        repeats = count > 1 and not pair and random.random() < REPEATED_SHARE
        copies = int(random.integers(2, count + 1)) if repeats else 1
        chosen = order[:1] * copies
        for concept in order[1:]:
            if len(chosen) == count:
                break
            if not any(self._words[concept] & self._words[other] for other in chosen):
                chosen.append(concept)
        boxes = _boxes(random, len(chosen))
        objects = tuple(
            SceneObject(concept, concept, self.categories[concept], "", box)
            for concept, box in zip(chosen, boxes, strict=True)
        )
        plain = not self.grounds or random.random() < PLAIN_SHARE
        ground = None if plain else self.grounds[int(random.integers(len(self.grounds)))]
        nothing = np.empty((0, 0, 3), dtype=np.uint8)
        relations = relations_between(objects, SIDE, SIDE)
        return Scene(nothing, objects, relations, "", (), caption_of(chosen, ground), 0.0, "plain")

    def questions(self, scene: Scene, random: np.random.Generator) -> list[Question]:
        """All positions, the category of a single concept, a concept that is there and one that is not, and a number."""
        shown = [item.concept for item in scene.objects]
        found = [*position_questions(scene, random), *category_questions(scene)]
        there, counted = (shown[place] for place in random.integers(len(shown), size=2))
        absent = self._absent(shown, random)
        if absent is not None and not never_denied(there):
            found.append(Question("existence", existence_text(there), "yes", there))
            found.append(Question("existence", existence_text(absent), "no", absent))
        number = shown.count(counted)
        if number > 1 or random.random() < ASKED_ONCE or not found:
            found.append(Question("count", count_text(counted), NUMBERS[number], counted))
        return found

    def _absent(self, shown: Sequence[str], random: np.random.Generator) -> str | None:
        """A concept that may be denied, half of the time of the category of the first one shown."""
        words = frozenset[str]().union(*(self._words[concept] for concept in shown))
        category = self.categories[shown[0]] if random.random() < 0.5 else None
        for place in random.permutation(len(self._concepts)):
            concept = self._concepts[place]
            fits = category in (None, self.categories[concept]) and not self._words[concept] & words
            if fits and not never_denied(concept):
                return concept
        return None


def _boxes(random: np.random.Generator, count: int) -> list[Box]:
    """Boxes that do not overlap, of the sizes that composed scenes have."""
    low, high = SIDE_RANGES[count]
    boxes: list[Box] = []
    while len(boxes) < count:
        width, height = ((low + (high - low) * random.random(2)) * SIDE).astype(int).tolist()
        left, top = int(random.integers(SIDE - width + 1)), int(random.integers(SIDE - height + 1))
        box = (left, top, left + width, top + height)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            boxes.append(box)
        elif random.random() < 0.05:  # the boxes so far may leave no room
            boxes.clear()
    return boxes


def _grounds(records: RecordTars) -> tuple[str, ...]:
    """The descriptions of photographs in the first captions, sorted."""
    found: set[str] = set()
    for index in range(min(len(records), READ_FOR_GROUNDS)):
        try:
            _, mark, ground = records.read(index, 0).text.partition(GROUND)
        except RecordError:
            continue
        found.update([ground] if mark else [])
    return tuple(sorted(found))
