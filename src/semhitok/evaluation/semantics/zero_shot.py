"""Zero-shot classification: the class whose description is nearest to the image (Radford et al. 2021, section 3.1).

A class is described by several prompts; its vector is the mean of their unit vectors, at unit length.

Shapes: N images, K classes, P prompts of a class, E channels of the shared space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from semhitok.evaluation.semantics.embedding import TextEmbedder, TextTokenizer, embed_texts
from semhitok.scenes.naming import with_article

TEMPLATES = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "an image that shows {}",
    "{} in front of a landscape",
    "a close view of {}",
)
"""Prompts; ``{}`` stands for the class with its article. Our own, as CLIP's are made for ImageNet."""
TOP = 5


@dataclass(frozen=True)
class ZeroShotResult:
    """Scores of choosing the class with the nearest description.

    Attributes:
        top1, top5: share of images whose class is nearest, or among the five nearest. A class that is exactly as near as
            the right one counts as nearer.
        chance_top1, chance_top5: the same for always choosing the most frequent class, or the five most frequent ones.
        balanced_accuracy: mean over classes of the class's own top-1 share; its chance level is 1 / classes.
        classes, images: their numbers.
    """

    top1: float
    top5: float
    chance_top1: float
    chance_top5: float
    balanced_accuracy: float
    classes: int
    images: int


def class_embeddings(
    model: TextEmbedder,
    text_tokenizer: TextTokenizer,
    names: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 256,
) -> Tensor:
    """One unit vector per class, (K,E).

    Args:
        model, text_tokenizer: see ``embed_texts``.
        names: class names, singular nouns without article.
        templates: prompts with one ``{}``.

    Raises:
        ValueError: no class, no template, or a template without ``{}``.
    """
    if not names or not templates:
        raise ValueError(f"zero-shot classification needs classes and templates, got {len(names)} and {len(templates)}")
    without = [template for template in templates if template.count("{}") != 1]
    if without:
        raise ValueError(f"a template holds one {{}} for the class, got {without[0]!r}")
    prompts = [template.replace("{}", _phrase(name)) for name in names for template in templates]
    embedded = embed_texts(model, text_tokenizer, prompts, batch_size=batch_size)
    vectors_KPE = rearrange(F.normalize(embedded, dim=-1), "(k p) e -> k p e", p=len(templates))
    return F.normalize(vectors_KPE.mean(dim=1), dim=-1)


def zero_shot(
    images_NE: Tensor, labels: Sequence[str], classes_KE: Tensor, names: Sequence[str], *, chunk: int = 4096
) -> ZeroShotResult:
    """Compare every image with every class.

    Args:
        images_NE: image embeddings, l2-normalised.
        labels: the class of each image, one of ``names``.
        classes_KE: from ``class_embeddings``.
        names: class names, all different.
        chunk: images per chunk.

    Raises:
        ValueError: no image, numbers that do not agree, or a label that is not among the names.
    """
    number = {name: index for index, name in enumerate(names)}
    if not labels or len(labels) != len(images_NE) or len(number) != len(classes_KE):
        raise ValueError(
            f"zero-shot classification got {len(images_NE)} images for {len(labels)} labels and {len(classes_KE)} "
            f"vectors for {len(number)} different names: one of each is needed, and at least one image"
        )
    unknown = [label for label in labels if label not in number]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is the label of an image, but none of the {len(names)} classes")
    labels_N = torch.tensor([number[label] for label in labels])
    ranks_N = torch.cat(
        [
            _ranks(part_NE.double() @ classes_KE.double().T, own_N)
            for part_NE, own_N in zip(images_NE.split(chunk), labels_N.split(chunk), strict=True)
        ]
    )
    counts = Counter(labels)
    right_N = (ranks_N < 1).double()
    return ZeroShotResult(
        top1=right_N.mean().item(),
        top5=(ranks_N < TOP).double().mean().item(),
        chance_top1=max(counts.values()) / len(labels),
        chance_top5=sum(count for _, count in counts.most_common(TOP)) / len(labels),
        balanced_accuracy=mean(right_N[labels_N == number[name]].mean().item() for name in counts),
        classes=len(names),
        images=len(labels),
    )


def _phrase(name: str) -> str:
    # Class names of other data sets may begin with any character; only words get an article.
    return with_article(name) if name[:1].isalpha() else name


def _ranks(scores_NK: Tensor, labels_N: Tensor) -> Tensor:
    """How many other classes score at least as high as the right one."""
    return (scores_NK >= scores_NK.gather(1, labels_N[:, None])).sum(dim=1) - 1
