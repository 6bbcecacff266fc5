import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.metrics.frechet import (
    FeatureExtractor,
    FeatureStatistics,
    FrechetMetric,
    efficientnet_lite2_features,
    frechet_distance,
)
from semhitok.storage.cache import weights_path


def features(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator)
    return torch.randn(count, dim, generator=generator) @ mixing + torch.randn(dim, generator=generator)


def by_scipy(one, two):
    one, two = one.double().numpy(), two.double().numpy()
    cov1, cov2 = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    root = np.real(np.asarray(scipy.linalg.sqrtm(cov1 @ cov2)))
    return np.square(one.mean(0) - two.mean(0)).sum() + np.trace(cov1 + cov2 - 2 * root)


def distance(one, two):
    statistics = [FeatureStatistics(), FeatureStatistics()]
    for batch, entry in zip((one, two), statistics, strict=True):
        entry.update(batch)
    return frechet_distance(*[value for entry in statistics for value in (entry.mean_D, entry.covariance)])


@settings(max_examples=20, deadline=None)
@given(dim=st.integers(2, 12), seed=st.integers(0, 1000))
def test_distance_is_that_of_scipy(dim, seed):
    one, two = features(60, dim, seed), features(50, dim, seed + 1)
    assert distance(one, two) == pytest.approx(by_scipy(one, two), rel=1e-5, abs=1e-5)


def test_fewer_images_than_features_gives_a_finite_distance_that_is_zero_for_the_same_images():
    one, two = features(8, 20, 0), features(8, 20, 1)
    assert distance(one, one) == pytest.approx(0, abs=1e-9)
    assert 0 < distance(one, two) == pytest.approx(distance(two, one), rel=1e-6)


def test_distance_of_diagonal_gaussians_by_hand():
    # |(3, 4)|² + (1 - 2)² + (3 - 1)²
    covariances = torch.diag(torch.tensor([1.0, 9.0])), torch.diag(torch.tensor([4.0, 1.0]))
    found = frechet_distance(torch.zeros(2), covariances[0], torch.tensor([3.0, 4.0]), covariances[1])
    assert found == pytest.approx(25 + 1 + 4)


def test_statistics_do_not_depend_on_the_batches():
    # A large mean with a small spread, where the textbook formula E[x²] - E[x]² would lose digits.
    vectors = features(37, 5, 0).double() + 1e6
    statistics = FeatureStatistics()
    for part in (slice(1), slice(1, 20), slice(20, 20), slice(20, None)):
        statistics.update(vectors[part])
    assert statistics.count == 37
    np.testing.assert_allclose(statistics.mean_D, vectors.numpy().mean(0))
    np.testing.assert_allclose(statistics.covariance, np.cov(vectors.numpy(), rowvar=False), rtol=1e-6)


def test_one_image_has_no_covariance():
    statistics = FeatureStatistics()
    statistics.update(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 images"):
        _ = statistics.covariance


def test_the_score_carries_its_protocol():
    extractor = FeatureExtractor("Fréchet distance (mean colour)", "mean of each channel", lambda x: x.mean((2, 3)))
    metric = FrechetMetric(extractor)
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    metric.update(images, images)
    score = metric.result()
    assert (score.name, score.protocol, score.images) == (extractor.name, extractor.protocol, 6)
    assert score.distance == pytest.approx(0, abs=1e-6)


def test_efficientnet_lite2_tells_blurred_images_from_sharp_ones():
    weights = weights_path("efficientnet_lite2.pth")
    if not weights.exists():
        pytest.skip("EfficientNet-Lite2 weights are not in the cache: run `semhitok data fetch`")
    extractor = efficientnet_lite2_features(weights, image_size=64)
    assert "FID" not in extractor.name
    assert "64 px" in extractor.protocol
    images = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scores = []
    for kernel in (1, 9):
        metric = FrechetMetric(extractor)
        metric.update(images, torch.nn.functional.avg_pool2d(images, kernel, 1, kernel // 2))
        scores.append(metric.result().distance)
    assert scores[0] == pytest.approx(0, abs=1e-2)
    assert scores[1] > 1
