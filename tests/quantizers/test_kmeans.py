from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from semhitok.quantizers.dead_codes import keyed_generator
from semhitok.quantizers.kmeans import kmeans


def inertia(z_ND: Tensor, centres_KD: Tensor) -> float:
    return float(torch.cdist(z_ND, centres_KD).amin(1).square().sum())


def test_lloyd_steps_equal_scikit_learn_from_the_same_start() -> None:
    z_ND = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    start_KD = kmeans(z_ND, 8, iterations=0, seed=3)
    theirs = KMeans(8, init=start_KD.numpy(), n_init=1, max_iter=4, tol=0, algorithm="lloyd").fit(z_ND.numpy())
    ours_KD = kmeans(z_ND, 8, iterations=4, seed=3)
    torch.testing.assert_close(ours_KD, torch.from_numpy(theirs.cluster_centers_), rtol=1e-4, atol=1e-4)


def test_starts_from_distinct_samples() -> None:
    z_ND = torch.randn(20, 3)
    centres_KD = kmeans(z_ND, 20, iterations=0, seed=1)
    assert sorted(centres_KD.tolist()) == sorted(z_ND.tolist())


def test_empty_clusters_move_to_the_worst_vector() -> None:
    # 50 copies of one vector take most starting centres; the few other vectors must still get their own.
    others = 10 * torch.eye(4)
    z_ND = torch.cat([torch.zeros(50, 4), others])
    centres_KD = kmeans(z_ND, 5, iterations=6, seed=0)
    assert inertia(z_ND, centres_KD) < 1e-6


def test_deterministic_and_keyed() -> None:
    z_ND = torch.randn(300, 4)
    assert torch.equal(kmeans(z_ND, 10, seed=5), kmeans(z_ND, 10, seed=5))
    assert not torch.equal(kmeans(z_ND, 10, seed=5), kmeans(z_ND, 10, seed=6))
    first, second = (torch.randn(3, generator=keyed_generator(1, step)) for step in (2, 3))
    assert not torch.equal(first, second)


def test_spherical_equals_a_plain_loop_and_ignores_length() -> None:
    z_ND = torch.randn(150, 5) * torch.rand(150, 1).add(0.1)
    unit_ND = F.normalize(z_ND, dim=1)
    expected_KD = kmeans(z_ND, 6, iterations=0, seed=0, spherical=True)
    for _ in range(5):
        ids_N = (unit_ND @ expected_KD.T).argmax(1)
        expected_KD = torch.stack([F.normalize(unit_ND[ids_N == k].sum(0), dim=0) for k in range(6)])
    found_KD = kmeans(z_ND, 6, iterations=5, seed=0, spherical=True)
    torch.testing.assert_close(found_KD, expected_KD, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_KD.norm(dim=1), torch.ones(6))
