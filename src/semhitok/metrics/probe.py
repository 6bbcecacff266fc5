"""Category probe: how much of what an image shows can be read off its quantized features by a linear classifier.

Multinomial logistic regression on one vector per image, standardised by the training set's mean and deviation, fitted
by L-BFGS in fp64 from zero: no randomness but the seeded choice of the validation slice, which sets the l2 strength.

Shapes: N images, D features, C classes, G strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidate l2 strengths, relative to the mean cross-entropy."""


@dataclass(frozen=True)
class ProbeResult:
    """Scores of the probe on the test images.

    Attributes:
        accuracy: share of test images classified correctly.
        chance: accuracy of always answering the most frequent training class.
        balanced_accuracy: mean over classes of the class's own accuracy; its chance level is 1 / classes.
        per_class: accuracy by class, for the classes in the test set.
        train_images, test_images: number of images used.
        ignored: number of test images left out because no training image has their label.
        strength: the l2 strength chosen on the validation slice.
    """

    accuracy: float
    chance: float
    balanced_accuracy: float
    per_class: dict[str, float]
    train_images: int
    test_images: int
    ignored: int
    strength: float


def fit_logistic_regression(features_ND: Tensor, labels_N: Tensor, classes: int, strength: float) -> Tensor:
    """Weights (D+1,C) minimising mean cross-entropy + strength/2 |W|²; the last row is the bias, not penalised.

    Scikit-learn's ``C`` is 1 / (N * strength).
    """
    features_ND = F.pad(features_ND.double(), (0, 1), value=1.0)
    weights_DC = torch.zeros(features_ND.shape[1], classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights_DC], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features_ND @ weights_DC, labels_N) + strength / 2 * weights_DC[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # pyright: ignore[reportArgumentType]
    return weights_DC.detach()


def predict(features_ND: Tensor, weights_DC: Tensor) -> Tensor:
    """Most likely class of each row, (N,) int64."""
    return (features_ND.double() @ weights_DC[:-1] + weights_DC[-1]).argmax(dim=1)


def probe(
    train_features_ND: Tensor,
    train_labels: Sequence[str],
    test_features_ND: Tensor,
    test_labels: Sequence[str],
    *,
    train_groups: Sequence[str] | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
) -> ProbeResult:
    """Fit on the training images, choose the l2 strength on a slice of them, refit on all, score on the test images.

    Args:
        train_features_ND, test_features_ND: one vector per image, for instance the mean over tokens of its codes.
        train_labels, test_labels: category of each image.
        train_groups: groups that the validation split must not divide, for instance the concept of each training image,
            so that the strength is chosen for unseen concepts; by default every image is its own group.
        validation_share: share of the groups in the validation slice.
        seed: seed of the validation slice.

    Raises:
        ValueError: features and labels differ in number, fewer than two classes, or no test image has a known label.
    """
    names = sorted(set(train_labels))
    number = {name: index for index, name in enumerate(names)}
    known = [index for index, label in enumerate(test_labels) if label in number]
    _check(train_features_ND, train_labels, test_features_ND, test_labels, classes=len(names), known=len(known))

    mean_D = train_features_ND.double().mean(dim=0)
    # A constant channel carries no information; dividing by one leaves it at zero.
    deviation_D = train_features_ND.double().std(dim=0, unbiased=False)
    deviation_D = torch.where(deviation_D > 1e-12, deviation_D, 1.0)
    train_ND = (train_features_ND.double() - mean_D) / deviation_D
    test_ND = (test_features_ND[known].double() - mean_D) / deviation_D
    train_labels_N = torch.tensor([number[label] for label in train_labels])
    test_labels_N = torch.tensor([number[test_labels[index]] for index in known])

    validation_N = validation_slice(train_groups or [str(i) for i in range(len(train_labels))], validation_share, seed)
    strength = max(
        STRENGTHS,
        key=lambda candidate: _validation_accuracy(train_ND, train_labels_N, validation_N, len(names), candidate),
    )
    weights_DC = fit_logistic_regression(train_ND, train_labels_N, len(names), strength)
    right_N = predict(test_ND, weights_DC) == test_labels_N
    per_class = {
        name: right_N[test_labels_N == index].double().mean().item()
        for index, name in enumerate(names)
        if (test_labels_N == index).any()
    }
    most_frequent = train_labels_N.bincount().argmax()
    return ProbeResult(
        accuracy=right_N.double().mean().item(),
        chance=(test_labels_N == most_frequent).double().mean().item(),
        balanced_accuracy=sum(per_class.values()) / len(per_class),
        per_class=per_class,
        train_images=len(train_labels),
        test_images=len(known),
        ignored=len(test_labels) - len(known),
        strength=strength,
    )


def validation_slice(groups: Sequence[str], share: float, seed: int) -> Tensor:
    """Mask of the images in the validation slice, (N,) bool: ``share`` of the groups, at least one of them."""
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[index] for index in order[: max(1, round(share * len(names)))]}
    return torch.tensor([group in chosen for group in groups])


def _validation_accuracy(
    features_ND: Tensor, labels_N: Tensor, validation_N: Tensor, classes: int, strength: float
) -> float:
    if validation_N.all():
        return 0.0  # a single group leaves nothing to fit on: the first candidate is kept
    weights_DC = fit_logistic_regression(features_ND[~validation_N], labels_N[~validation_N], classes, strength)
    return (predict(features_ND[validation_N], weights_DC) == labels_N[validation_N]).double().mean().item()


def _check(
    train_ND: Tensor, train_labels: Sequence[str], test_ND: Tensor, test_labels: Sequence[str], classes: int, known: int
) -> None:
    for kind, features_ND, labels in (("training", train_ND, train_labels), ("test", test_ND, test_labels)):
        if len(features_ND) != len(labels):
            raise ValueError(
                f"the probe got {len(features_ND)} {kind} features for {len(labels)} labels: their numbers must agree."
            )
    if classes < 2:
        raise ValueError(f"the probe needs training images of at least 2 categories, but got {classes}.")
    if known == 0:
        raise ValueError("the probe cannot be tested: no test image has a category that occurs in training.")
