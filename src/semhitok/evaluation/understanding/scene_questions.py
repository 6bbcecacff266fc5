"""Composed scenes with their questions and the concepts of their objects, read together with the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from semhitok.data.reading import BadImage, SizedImages
from semhitok.data.record_parsing import description
from semhitok.data.sources import Subset, open_source
from semhitok.scenes.questions import Kind, Negative, Question

GROUPS = (
    "existence",
    "existence, random",
    "existence, popular",
    "existence, adversarial",
    "count",
    "position",
    "position, left or right",
    "position, above or below",
    "category",
)
"""Groups in which questions are scored; see ``groups_of``."""


@dataclass(frozen=True)
class AskedScene:
    """The ground truth of a scene, without its image.

    Attributes:
        key: its name within the folder.
        concepts: one for each of its objects; empty for a bare photograph.
        questions: questions about it.
        description: its captions as one text, empty without captions.
    """

    key: str
    concepts: tuple[str, ...]
    questions: tuple[Question, ...]
    description: str = ""


class AskedScenes:
    """Iterates over the scenes of a folder: batches of images (B,3,size,size) uint8 and the ground truth of each.

    Args:
        folder: folder of webdataset tars, as ``semhitok data scenes`` writes them.
        size: side of the images in pixels; the shorter side is resized and the centre cropped.
        limit: number of scenes from the first on, None for all. Questions are balanced within a tar: whole tars keep the
            balance.
        batch_size: images per batch.

    Raises:
        ValueError: there is nothing to read, or limit is below 1; while iterating: too many bad images, or an invalid
            question.
    """

    def __init__(
        self, folder: str | os.PathLike[str], size: int, *, limit: int | None = None, batch_size: int = 64
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 scene, got {limit}")
        source = open_source(folder)
        self.source = Subset(source, range(len(source) if limit is None else min(limit, len(source))))
        self._images = SizedImages(self.source, size, batch_size=batch_size)

    def __len__(self) -> int:
        """Number of scenes to read, unreadable ones included."""
        return len(self.source)

    @property
    def bad(self) -> list[BadImage]:
        """Images that could not be read so far; their scenes are left out."""
        return self._images.bad

    def __iter__(self) -> Iterator[tuple[Tensor, list[AskedScene]]]:
        for batch in self._images:
            keys = map(self.source.key, batch.positions)
            yield batch.images, [asked_scene(each, key) for each, key in zip(batch.metadata, keys, strict=True)]


def asked_scene(metadata: Mapping[str, Any], key: str) -> AskedScene:
    """Objects, questions and captions from the JSON beside an image; each is empty if there are none.

    Raises:
        ValueError: an object without concept, or a question without kind, question, answer or concept, or of unknown kind.
    """
    try:
        concepts = tuple(str(each["concept"]) for each in metadata.get("objects") or ())
        questions = tuple(_question(each) for each in metadata.get("qa") or ())
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{key}: an object needs its concept, and a question kind ({', '.join(get_args(Kind))}), question, answer, concept "
            f"and, for existence, negatives ({', '.join(get_args(Negative))}); {error}"
        ) from error
    return AskedScene(key, concepts, questions, description(metadata))


def _question(fields: Mapping[str, Any]) -> Question:
    kind, negatives = fields["kind"], fields.get("negatives")
    if kind not in get_args(Kind) or negatives not in (None, *get_args(Negative)):
        raise TypeError(f"got kind {kind!r} and negatives {negatives!r}")
    texts = {name: str(fields[name]) for name in ("question", "answer", "concept")}
    return Question(kind, **texts, negatives=negatives)


def axis_of(question: Question) -> str:
    """Which pair of answers a question about positions offers."""
    return "above or below" if " above or below " in question.question else "left or right"


def groups_of(question: Question) -> tuple[str, ...]:
    """The entries of ``GROUPS`` that a question belongs to: its kind, and its subgroup if there is one."""
    if question.kind == "position":
        return "position", f"position, {axis_of(question)}"
    if question.kind == "existence" and question.negatives is not None:
        return "existence", f"existence, {question.negatives}"
    return (question.kind,)
