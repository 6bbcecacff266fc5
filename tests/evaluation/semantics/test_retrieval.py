"""Recall against brute force in numpy, hand-made embeddings, ties and chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.tiny_unitok import text_tokenizer, tiny_unitok

from semhitok.evaluation.semantics.retrieval import RECALL_AT, chance_of_recall, retrieval, retrieve


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def brute_force(scores_QA: np.ndarray, right: list[set[int]], k: int) -> float:
    """Sort all answers of each query and look at the first k."""
    hits = [bool(set(np.argsort(-row)[:k].tolist()) & own) for row, own in zip(scores_QA, right, strict=True)]
    return float(np.mean(hits))


@pytest.mark.parametrize("chunk", [1024, 7])
def test_recall_is_that_of_brute_force(chunk):
    random = np.random.default_rng(0)
    images_NE, texts_ME = unit(40, 4, seed=1), unit(55, 4, seed=2)
    pairs = {(int(random.integers(40)), text) for text in range(55)}  # every text has an image ...
    pairs |= {(image, int(random.integers(55))) for image in range(40)}  # ... every image a text, many to many
    texts_of = [{text for image, text in pairs if image == number} for number in range(40)]
    images_of = [{image for image, text in pairs if text == number} for number in range(55)]
    result = retrieval(images_NE, texts_ME, torch.tensor(sorted(pairs)), chunk=chunk)
    scores_NM = (images_NE @ texts_ME.T).numpy()
    for k in RECALL_AT:
        assert result.image_to_text.at[k] == pytest.approx(brute_force(scores_NM, texts_of, k))
        assert result.text_to_image.at[k] == pytest.approx(brute_force(scores_NM.T, images_of, k))
        assert result.image_to_text.chance[k] == pytest.approx(
            np.mean([chance_of_recall(len(own), 55, k) for own in texts_of])
        )
    assert (result.images, result.texts) == (40, 55)


def test_chance_by_enumeration():
    for right, answers, k in ((1, 6, 1), (2, 6, 3), (3, 5, 4), (1, 4, 10)):
        draws = list(combinations(range(answers), min(k, answers)))
        share = sum(any(answer < right for answer in draw) for draw in draws) / len(draws)
        assert chance_of_recall(right, answers, k) == pytest.approx(share)


def test_several_captions_by_hand():
    images_NE = torch.eye(2)
    texts_ME = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    # Texts 0 and 1 belong to image 0. Text 0 lies nearer to image 1, but text 1 is found at once.
    result = retrieval(images_NE, texts_ME, torch.tensor([[0, 0], [0, 1], [1, 2]]))
    assert result.image_to_text.at == {1: 1.0, 5: 1.0, 10: 1.0}
    assert result.text_to_image.at[1] == pytest.approx(2 / 3)
    assert result.text_to_image.at[5] == 1.0
    assert result.image_to_text.chance[1] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_tie_with_a_wrong_answer_counts_as_wrong_and_with_a_right_one_does_not():
    same = torch.tensor([[1.0, 0.0]])
    result = retrieval(same.repeat(3, 1), same.repeat(3, 1), torch.tensor([[0, 0], [1, 1], [2, 2]]))
    assert (result.image_to_text.at[1], result.text_to_image.at[1]) == (0.0, 0.0)
    assert result.image_to_text.at[5] == 1.0  # of three answers
    result = retrieval(same, same.repeat(3, 1), torch.tensor([[0, 0], [0, 1], [0, 2]]))
    assert (result.image_to_text.at[1], result.text_to_image.at[1]) == (1.0, 1.0)


def test_equal_captions_are_one_text():
    model, texts = tiny_unitok(), text_tokenizer()
    images_NE = unit(3, 12, seed=3)
    owl, bell = (model.text_embedding(texts(text, return_tensors="pt")["input_ids"]) for text in ("owl", "bell"))
    result = retrieve(model, texts, images_NE, [["owl"], ["owl", "bell"], ["owl", "owl"]])
    wanted = retrieval(images_NE, torch.cat([owl, bell]), torch.tensor([[0, 0], [1, 0], [1, 1], [2, 0]]))
    assert (result.images, result.texts) == (3, 2)
    assert result == wanted


def test_without_partners():
    with pytest.raises(ValueError, match="1 of 2 images have a partner"):
        retrieval(torch.eye(2), torch.eye(2), torch.tensor([[0, 0], [0, 1]]))
    with pytest.raises(ValueError, match="no image has one"):
        retrieve(tiny_unitok(), text_tokenizer(), torch.eye(2), [[], []])
