"""Labelled features for the category probe, from a tokenizer and the metadata of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from semhitok.tokenizers.protocol import ImageTokenizer, ProjectedFeatures


class ProbeFeatures:
    """Features of labelled images, one vector per image and kind; unlabelled images are skipped.

    Attributes:
        features: batches (B,d) by kind. ``semantic`` and ``pixel`` are the codes averaged over an image's tokens, as are
            the features that a tokenizer adds (``ProjectedFeatures``; UniTok's ``projected``). ``image`` is the embedding
            of the whole image, if one is given.
        labels: category of each image.
        concepts: what each image shows; images of one concept must be on the same side of a validation split.
    """

    def __init__(self) -> None:
        self.features: dict[str, list[Tensor]] = {}
        self.labels: list[str] = []
        self.concepts: list[str] = []

    def update(
        self,
        model: ImageTokenizer,
        ids: Tensor,
        metadata: Sequence[dict[str, Any]],
        image_embeddings: Tensor | None = None,
    ) -> None:
        """Add a batch: ids (B,N) or (B,N,C), the metadata of each image, and embeddings (B,E) of the images."""
        chosen = _labelled(metadata)
        if not chosen:
            return
        embedded = model.embed(ids[chosen])
        tokens = {"semantic": embedded.semantic, "pixel": embedded.pixel}
        if isinstance(model, ProjectedFeatures):
            tokens |= model.projected_features(embedded)
        vectors = {kind: features.float().mean(dim=1) for kind, features in tokens.items() if features is not None}
        if image_embeddings is not None:
            vectors["image"] = image_embeddings[chosen].float()
        self.add(vectors, [metadata[index] for index in chosen])

    def add(self, vectors: Mapping[str, Tensor], metadata: Sequence[dict[str, Any]]) -> None:
        """Add vectors (B,d) by kind, and the metadata of each image."""
        for kind, vectors_BD in vectors.items():
            self.features.setdefault(kind, []).append(vectors_BD[_labelled(metadata)].cpu())
        for label, concept in filter(None, map(label_of, metadata)):
            self.labels.append(label)
            # An image of unknown concept is a group of its own.
            self.concepts.append(concept if concept is not None else f"image {len(self.labels)}")


def label_of(metadata: dict[str, Any]) -> tuple[str, str | None] | None:
    """Category of an image, and its concept if known; None if it has no label.

    A scene's label is the category of its largest object; other data sets have a ``class`` or a ``label``.
    """
    if metadata.get("objects"):
        largest = max(metadata["objects"], key=lambda entry: _area(entry["box"]))
        return str(largest["category"]), str(largest["concept"])
    for name in ("class", "label"):
        if metadata.get(name) is not None:
            return str(metadata[name]), None
    return None


def _labelled(metadata: Sequence[dict[str, Any]]) -> list[int]:
    return [index for index, entry in enumerate(metadata) if label_of(entry) is not None]


def _area(box: Sequence[float]) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)
