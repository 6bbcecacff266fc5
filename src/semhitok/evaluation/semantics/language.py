"""How well a tokenizer with a text tower matches images and texts: zero-shot classification and retrieval.

Classes and captions come from the metadata of the images themselves, as scenes and captioned data sets carry them.

Shapes: B images, E channels of the space that images and texts share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.evaluation.semantics.embedding import TextEmbedder, TextTokenizer
from semhitok.evaluation.semantics.labels import label_of
from semhitok.evaluation.semantics.retrieval import RECALL_AT, Recall, RetrievalResult, retrieve
from semhitok.evaluation.semantics.zero_shot import TEMPLATES, TOP, ZeroShotResult, class_embeddings, zero_shot
from semhitok.visualization.markdown import percent, table


@dataclass(frozen=True)
class LanguageScores:
    """Images and texts of one source.

    Attributes:
        zero_shot: by kind of class: ``categories`` and ``concepts`` of scenes, ``classes`` of other data sets.
        retrieval: between images and captions; None without captions.
    """

    zero_shot: dict[str, ZeroShotResult]
    retrieval: RetrievalResult | None


class LanguageMeasurement:
    """Collects image embeddings with the labels and captions of the images; images without any are skipped."""

    def __init__(self) -> None:
        self.labelled: dict[str, list[tuple[Tensor, str]]] = {}
        self.captioned: list[tuple[Tensor, list[str]]] = []

    def update(self, embeddings_BE: Tensor, metadata: Sequence[dict[str, Any]]) -> None:
        """Add a batch: image embeddings, on any device, and the metadata of each image."""
        for embedding_E, entry in zip(embeddings_BE.float().cpu(), metadata, strict=True):
            for kind, name in class_names(entry).items():
                self.labelled.setdefault(kind, []).append((embedding_E, name))
            captions = captions_of(entry)
            if captions:
                self.captioned.append((embedding_E, captions))

    def result(self, model: TextEmbedder, text_tokenizer: TextTokenizer) -> LanguageScores | None:
        """The scores, or None if no image has a label or caption; a kind with a single class is left out."""
        found = {}
        for kind, entries in self.labelled.items():
            embeddings, labels = zip(*entries, strict=True)
            names = sorted(set(labels))
            if len(names) > 1:
                classes_KE = class_embeddings(model, text_tokenizer, names)
                found[kind] = zero_shot(torch.stack(embeddings), labels, classes_KE, names)
        if not self.captioned:
            return LanguageScores(found, None) if found else None
        embeddings, captions = zip(*self.captioned, strict=True)
        return LanguageScores(found, retrieve(model, text_tokenizer, torch.stack(embeddings), captions))


def class_names(metadata: dict[str, Any]) -> dict[str, str]:
    """Class of an image by kind, as in the category probe: for scenes that of the largest object; numbers are no names."""
    label = label_of(metadata)
    if label is None:
        return {}
    category, concept = label
    if concept is not None:
        return {"categories": category, "concepts": concept}
    return {"classes": category} if any(letter.isalpha() for letter in category) else {}


def captions_of(metadata: dict[str, Any]) -> list[str]:
    """The caption, or without one the list ``captions``; in scenes these are parts of the caption."""
    one, several = metadata.get("caption"), metadata.get("captions")
    found = [one] if isinstance(one, str) else several if isinstance(several, list) else []
    return [text for text in found if isinstance(text, str) and text.strip()]


def language_section(groups: Mapping[str, LanguageScores]) -> str:
    """Markdown for one or more sources: a table of classification and one of retrieval, with chance levels."""
    classes = [
        [name, kind, *_zero_shot_cells(score)]
        for name, group in groups.items()
        for kind, score in group.zero_shot.items()
    ]
    head = [
        "images",
        "zero-shot",
        "top-1",
        "chance",
        f"top-{TOP}",
        "chance",
        "mean over classes",
        "classes",
        "tested on",
    ]
    parts = [table(head, classes)] if classes else []
    found = [
        [name, direction, *_recall_cells(recall), f"{score.images:,} / {score.texts:,}"]
        for name, group in groups.items()
        if (score := group.retrieval) is not None
        for direction, recall in (("text to image", score.text_to_image), ("image to text", score.image_to_text))
    ]
    head = ["images", "retrieval (chance)", *(f"recall at {k}" for k in RECALL_AT), "images / different texts"]
    return "\n\n".join([*parts, table(head, found)] if found else parts)


def _zero_shot_cells(score: ZeroShotResult) -> list[str]:
    shares = (score.top1, score.chance_top1, score.top5, score.chance_top5, score.balanced_accuracy)
    return [*map(percent, shares), f"{score.classes:,}", f"{score.images:,}"]


def _recall_cells(recall: Recall) -> list[str]:
    return [f"{percent(recall.at[k])} ({percent(recall.chance[k])})" for k in RECALL_AT]


def language_protocol() -> list[str]:
    """Sentences on how it was measured."""
    prompts = ", ".join(f'"{template}"' for template in TEMPLATES)
    return [
        "Zero-shot: the class whose text embedding has the largest cosine with the image embedding, among all classes of "
        f"the set; a class is the mean over the prompts {prompts} with the class and its article for {{}}; an image's "
        f"class is that of its largest object; chance: always the most frequent class (or {TOP}).",
        "Retrieval: by cosine over all images and different captions of the set; captions of the same words are one text "
        "with several right images; ties count as wrong; chance: answers in random order.",
    ]
