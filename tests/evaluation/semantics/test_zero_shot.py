"""Zero-shot classification against scikit-learn, hand-made embeddings and ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import recall_score, top_k_accuracy_score
from tests.tiny_unitok import text_tokenizer, tiny_unitok

from semhitok.evaluation.semantics.zero_shot import TEMPLATES, class_embeddings, zero_shot

NAMES = [f"class {number}" for number in range(8)]


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("chunk", [4096, 7])
def test_shares_are_those_of_scikit_learn(chunk):
    images_NE, classes_KE = unit(60, 5, seed=0), unit(8, 5, seed=1)
    numbers = np.random.default_rng(2).integers(0, 8, 60) // 2 * 2  # four of eight classes occur
    result = zero_shot(images_NE, [NAMES[n] for n in numbers], classes_KE, NAMES, chunk=chunk)
    scores_NK = (images_NE @ classes_KE.T).numpy()
    for k, share in ((1, result.top1), (5, result.top5)):
        assert share == pytest.approx(top_k_accuracy_score(numbers, scores_NK, k=k, labels=range(8)))
    mean = recall_score(numbers, scores_NK.argmax(1), labels=np.unique(numbers), average="macro")
    assert result.balanced_accuracy == pytest.approx(mean)
    counts = np.sort(np.bincount(numbers, minlength=8))[::-1]
    assert (result.chance_top1, result.chance_top5) == (counts[0] / 60, counts[:5].sum() / 60)
    assert (result.classes, result.images) == (8, 60)


def test_by_hand():
    classes_KE = torch.eye(3)
    images_NE = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8], [0, 0, 1]])
    result = zero_shot(images_NE, ["a", "a", "c", "b"], classes_KE, ["a", "b", "c"])
    assert (result.top1, result.top5) == (0.5, 1.0)
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert (result.chance_top1, result.chance_top5) == (0.5, 1.0)


def test_a_tie_counts_as_wrong():
    same_KE = torch.tensor([[1.0, 0]] * 6)
    result = zero_shot(torch.tensor([[1.0, 0]] * 2), ["a", "f"], same_KE, list("abcdef"))
    assert (result.top1, result.top5) == (0.0, 0.0)


def test_a_class_is_the_mean_of_its_prompts():
    model, texts = tiny_unitok(), text_tokenizer()
    found_KE = class_embeddings(model, texts, ["horse", "owl", "(unnamed)"], batch_size=5)
    for name, found_E in zip(["a horse", "an owl", "(unnamed)"], found_KE, strict=True):
        vectors = []
        for template in TEMPLATES:
            ids = torch.tensor([texts(template.replace("{}", name))["input_ids"]])
            vectors.append(model.text_embedding(ids)[0])
        mean_E = torch.stack(vectors).mean(dim=0)
        assert torch.allclose(found_E, mean_E / mean_E.norm(), atol=1e-5)
    one_KE = class_embeddings(model, texts, ["owl"], templates=["a picture of {}"])
    assert torch.allclose(one_KE, model.text_embedding(texts("a picture of an owl", return_tensors="pt")["input_ids"]))


def test_what_cannot_be_classified():
    model, texts = tiny_unitok(), text_tokenizer()
    with pytest.raises(ValueError, match=r"a template holds one \{\} for the class, got 'a photo'"):
        class_embeddings(model, texts, ["owl"], templates=["{}", "a photo"])
    with pytest.raises(ValueError, match="got 0 and 7"):
        class_embeddings(model, texts, [])
    with pytest.raises(ValueError, match="'z' is the label of an image"):
        zero_shot(unit(1, 3, seed=0), ["z"], torch.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="3 vectors for 2 different names"):
        zero_shot(unit(1, 3, seed=0), ["a"], torch.eye(3), ["a", "b", "b"])
    with pytest.raises(ValueError, match="at least one image"):
        zero_shot(unit(0, 3, seed=0), [], torch.eye(3), ["a", "b", "c"])
