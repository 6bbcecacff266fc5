"""Text-to-image prompts from the captions of test scenes, with what a generated image must show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from semhitok.scenes.truth import SceneTruth

PromptKind = Literal["single", "several", "relation"]
KINDS: tuple[PromptKind, ...] = ("single", "several", "relation")


@dataclass(frozen=True)
class Prompt:
    """A caption of a scene and what it asks for.

    Attributes:
        text: "two horses and an owl", or "an owl above a horse".
        kind: single, one object; several, more of them; relation, two objects and their relative position.
        scene: index of the scene whose caption it is.
        numbers: (concept, how many), each concept once.
        relation: (concept, "left of", "right of", "above" or "below", concept); None for the other kinds.
    """

    text: str
    kind: PromptKind
    scene: int
    numbers: tuple[tuple[str, int], ...]
    relation: tuple[str, str, str] | None = None


def prompts_of(truths: Sequence[SceneTruth], count: int) -> list[Prompt]:
    """At most ``count`` prompts, one per scene, alternating between the three kinds while there are any.

    The background is left out: "two horses", not "two horses in front of green grass". A scene with relations gives one of
    them or all its objects, whichever kind has fewer prompts so far.

    Raises:
        ValueError: count is below 1, or no scene has objects.
    """
    if count < 1:
        raise ValueError(f"the number of prompts must be at least 1, got {count}")
    by_kind: dict[PromptKind, list[Prompt]] = {kind: [] for kind in KINDS}
    for index, truth in enumerate(truths):
        if truth.objects:
            prompt = _prompt(index, truth, everything=len(by_kind["relation"]) > len(by_kind["several"]))
            by_kind[prompt.kind].append(prompt)
    if not any(by_kind.values()):
        raise ValueError("none of the scenes shows an object, so there are no prompts")
    longest = max(map(len, by_kind.values()))
    in_turn = [found[turn] for turn in range(longest) for found in by_kind.values() if turn < len(found)]
    return in_turn[:count]


def _prompt(index: int, truth: SceneTruth, *, everything: bool) -> Prompt:
    """A prompt for all objects, or for a relation if there is one."""
    numbers = Counter(thing.concept for thing in truth.objects)
    related = [
        (truth.objects[one].concept, relation, truth.objects[other].concept)
        for one, relation, other in truth.relations
        if numbers[truth.objects[one].concept] == numbers[truth.objects[other].concept] == 1
    ]
    if related and not everything:
        place = index % len(related)
        first, relation, second = related[place]
        text = truth.captions[2 + place]
        return Prompt(text, "relation", index, ((first, 1), (second, 1)), (first, relation, second))
    kind = "single" if len(truth.objects) == 1 else "several"
    return Prompt(truth.captions[1], kind, index, tuple(numbers.items()))
