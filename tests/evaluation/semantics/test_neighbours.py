"""Precision of nearest neighbours by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semhitok.evaluation.semantics.neighbours import neighbour_precision


def test_precision_and_chance_by_brute_force():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((30, 4))
    labels = [str(label) for label in generator.integers(0, 3, 30)]
    groups = [f"{label}-{generator.integers(0, 3)}" for label in labels]
    found = neighbour_precision(torch.tensor(features), labels, groups=groups, neighbours=3)
    centred = features - features.mean(0)
    right, chance = [], []
    for i in range(30):
        others = [j for j in range(30) if groups[j] != groups[i]]
        cosine = [centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j]) for j in others]
        nearest = [others[k] for k in np.argsort(cosine)[::-1][:3]]
        right.append(np.mean([labels[j] == labels[i] for j in nearest]))
        chance.append(np.mean([labels[j] == labels[i] for j in others]))
    assert found.precision == pytest.approx(np.mean(right))
    assert found.chance == pytest.approx(np.mean(chance))


def test_separated_categories_are_found_and_too_few_images_refused():
    features = torch.tensor([[1.0, 0.1 * i] for i in range(4)] + [[-1.0, 0.1 * i] for i in range(4)])
    assert neighbour_precision(features, ["a"] * 4 + ["b"] * 4, neighbours=3).precision == 1
    with pytest.raises(ValueError, match="needs 8 other images for each image, but one has 7"):
        neighbour_precision(features, ["a"] * 4 + ["b"] * 4, neighbours=8)
    with pytest.raises(ValueError, match="8 features for 7 labels"):
        neighbour_precision(features, ["a"] * 7)
