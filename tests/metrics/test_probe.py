import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from semhitok.metrics.probe import fit_logistic_regression, predict, probe, validation_slice


def clusters(count, seed, classes=3, dim=5, spread=1.5):
    centres = np.random.default_rng(7).normal(size=(classes, dim))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    return torch.tensor(centres[labels] + spread * generator.normal(size=(count, dim))), labels


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_fit_is_that_of_scikit_learn(strength):
    features, labels = clusters(120, seed=0)
    weights = fit_logistic_regression(features, torch.tensor(labels), 3, strength)
    library = LogisticRegression(C=1 / (120 * strength), tol=1e-10, max_iter=5000).fit(features.numpy(), labels)
    np.testing.assert_allclose(weights[:-1].T, library.coef_, atol=1e-4)
    probabilities = torch.softmax(features @ weights[:-1] + weights[-1], dim=1)
    np.testing.assert_allclose(probabilities, library.predict_proba(features.numpy()), atol=1e-4)
    np.testing.assert_array_equal(predict(features, weights), library.predict(features.numpy()))


def test_probe_reaches_scikit_learns_accuracy_at_the_chosen_strength():
    train, train_labels = clusters(200, seed=1)
    test, test_labels = clusters(90, seed=2)
    result = probe(train, [f"c{k}" for k in train_labels], test, [f"c{k}" for k in test_labels])
    scaler = StandardScaler().fit(train)
    library = LogisticRegression(C=1 / (200 * result.strength), tol=1e-10, max_iter=5000)
    right = library.fit(scaler.transform(train), train_labels).predict(scaler.transform(test)) == test_labels
    assert result.accuracy == pytest.approx(right.mean())
    assert result.per_class == pytest.approx({f"c{k}": right[test_labels == k].mean() for k in range(3)})
    assert result.balanced_accuracy == pytest.approx(np.mean(list(result.per_class.values())))
    assert result.chance == pytest.approx((test_labels == np.bincount(train_labels).argmax()).mean())
    assert (result.train_images, result.test_images, result.ignored) == (200, 90, 0)


def test_the_same_every_time_and_unmoved_by_scale_and_constant_channels():
    train, labels = clusters(60, seed=3)
    names = [str(k) for k in labels]
    one = probe(train, names, train, names)
    stretched = torch.cat([train * 1000 + 5, torch.full((60, 1), 3.0)], dim=1)
    assert one == probe(train, names, train, names)
    assert one == probe(stretched, names, stretched, names)


def test_test_images_of_unknown_categories_are_left_out():
    train, labels = clusters(40, seed=4)
    names = [str(k) for k in labels]
    result = probe(train, names, train, ["never seen", *names[1:]])
    assert (result.test_images, result.ignored) == (39, 1)


def test_groups_stay_on_one_side_of_the_validation_split():
    groups = [f"concept {index % 10}" for index in range(60)]
    validation = validation_slice(groups, share=0.2, seed=0)
    sides = {group: {bool(validation[i]) for i in range(60) if groups[i] == group} for group in groups}
    assert all(len(side) == 1 for side in sides.values())
    assert validation.sum() == 12  # two of ten concepts
    assert not torch.equal(validation, validation_slice(groups, share=0.2, seed=1))


def test_a_single_group_leaves_nothing_to_choose_by_and_still_fits():
    train, labels = clusters(40, seed=6)
    names = [str(k) for k in labels]
    assert probe(train, names, train, names, train_groups=["all"] * 40).train_images == 40


def test_errors_say_what_is_wrong():
    train, labels = clusters(10, seed=5)
    names = [str(k) for k in labels]
    with pytest.raises(ValueError, match="10 training features for 9 labels"):
        probe(train, names[1:], train, names)
    with pytest.raises(ValueError, match="at least 2 categories"):
        probe(train, ["a"] * 10, train, names)
    with pytest.raises(ValueError, match="no test image has a category"):
        probe(train, names, train, ["z"] * 10)
