"""Image-text retrieval: does a caption find its image among all images, and an image one of its captions?

Identical captions are one text, which matches every image that has it: none of these images is a wrong answer.

Shapes: N images, M texts, Q queries of a chunk, E channels of the shared space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semhitok.evaluation.semantics.embedding import TextEmbedder, TextTokenizer, embed_texts

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Recall:
    """Recall in one direction.

    Attributes:
        at: share of queries with a right answer among the k nearest, by k. A wrong answer that is exactly as near as the
            nearest right one counts as nearer.
        chance: the same for a random order of answers.
    """

    at: dict[int, float]
    chance: dict[int, float]


@dataclass(frozen=True)
class RetrievalResult:
    """Recall in both directions, with the numbers of images and texts, as it falls with them.

    Attributes:
        text_to_image: a text finds one of its images.
        image_to_text: an image finds one of its texts.
        images, texts: their numbers; equal texts count once.
    """

    text_to_image: Recall
    image_to_text: Recall
    images: int
    texts: int


def retrieve(
    model: TextEmbedder,
    text_tokenizer: TextTokenizer,
    images_NE: Tensor,
    captions: Sequence[Sequence[str]],
    *,
    batch_size: int = 256,
) -> RetrievalResult:
    """Embed the captions and measure recall.

    Args:
        model, text_tokenizer: see ``embed_texts``.
        images_NE: image embeddings, l2-normalised.
        captions: one or more for each image.

    Raises:
        ValueError: see ``retrieval``.
    """
    texts = list(dict.fromkeys(caption for own in captions for caption in own))
    place = {text: index for index, text in enumerate(texts)}
    pairs = {(image, place[caption]) for image, own in enumerate(captions) for caption in own}
    if not texts:
        raise ValueError("retrieval needs captions, but no image has one")
    texts_ME = embed_texts(model, text_tokenizer, texts, batch_size=batch_size)
    return retrieval(images_NE, texts_ME, torch.tensor(sorted(pairs)))


def retrieval(images_NE: Tensor, texts_ME: Tensor, pairs_P2: Tensor, *, chunk: int = 1024) -> RetrievalResult:
    """Recall at 1, 5 and 10 in both directions, by cosine similarity.

    Args:
        images_NE, texts_ME: embeddings, l2-normalised.
        pairs_P2: (P,2) int64, indices of matching images (first) and texts (second); many to many, each pair once.
        chunk: queries per chunk.

    Raises:
        ValueError: an image or a text has no partner.
    """
    for what, count, column in (("images", len(images_NE), 0), ("texts", len(texts_ME), 1)):
        if len(pairs_P2[:, column].unique()) != count:
            raise ValueError(f"{len(pairs_P2[:, column].unique())} of {count} {what} have a partner: all need one")
    return RetrievalResult(
        text_to_image=_recall(texts_ME, images_NE, pairs_P2.flip(1), chunk),
        image_to_text=_recall(images_NE, texts_ME, pairs_P2, chunk),
        images=len(images_NE),
        texts=len(texts_ME),
    )


def _recall(queries_QE: Tensor, answers_AE: Tensor, pairs_P2: Tensor, chunk: int) -> Recall:
    ranks, chances = [], {k: 0.0 for k in RECALL_AT}
    for start in range(0, len(queries_QE), chunk):
        part_QE = queries_QE[start : start + chunk].double()
        scores_QA = part_QE @ answers_AE.double().T
        inside_P = (pairs_P2[:, 0] >= start) & (pairs_P2[:, 0] < start + len(part_QE))
        right_QA = torch.zeros(scores_QA.shape, dtype=torch.bool)
        right_QA[pairs_P2[inside_P, 0] - start, pairs_P2[inside_P, 1]] = True
        best_Q = scores_QA.masked_fill(~right_QA, -math.inf).amax(dim=1)
        ranks.append(((scores_QA >= best_Q[:, None]) & ~right_QA).sum(dim=1))
        for count in right_QA.sum(dim=1).tolist():
            for k in RECALL_AT:
                chances[k] += chance_of_recall(count, len(answers_AE), k)
    rank_Q = torch.cat(ranks)
    return Recall(
        at={k: (rank_Q < k).double().mean().item() for k in RECALL_AT},
        chance={k: total / len(queries_QE) for k, total in chances.items()},
    )


def chance_of_recall(right: int, answers: int, k: int) -> float:
    """Probability that k of ``answers`` chosen at random include one of the ``right`` ones: 1 - C(A - r, k) / C(A, k)."""
    k = min(k, answers)
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)
