import pytest
import torch

from semhitok.losses import distillation_loss


def test_hand_computed():
    prediction = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    target = torch.tensor([[[4.0, 3.0], [0.0, 2.0]]])
    losses = distillation_loss(prediction, target)
    assert set(losses) == {"cosine", "l1"}
    # Patch 1: cos = 24/25, |difference| = 1 + 1. Patch 2: cos = 0, |difference| = 1 + 2.
    assert losses["cosine"].item() == pytest.approx(((1 - 24 / 25) + 1) / 2)
    assert losses["l1"].item() == pytest.approx((2 + 3) / 4)


def test_extremes():
    features = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    same = distillation_loss(features, features)
    assert same["cosine"].item() == pytest.approx(0, abs=1e-6)
    assert same["l1"].item() == 0
    assert distillation_loss(features, -features)["cosine"].item() == pytest.approx(2)
    scaled = distillation_loss(3 * features, features)
    assert scaled["cosine"].item() == pytest.approx(0, abs=1e-6)
    assert scaled["l1"].item() == pytest.approx(2 * features.abs().mean().item(), rel=1e-5)


def test_teacher_gets_no_gradient_and_shapes_must_match():
    prediction = torch.randn(1, 2, 4, dtype=torch.bfloat16, requires_grad=True)
    target = torch.randn(1, 2, 4, requires_grad=True)
    losses = distillation_loss(prediction, target)
    assert losses["cosine"].dtype == losses["l1"].dtype == torch.float32
    (losses["cosine"] + losses["l1"]).backward()
    assert prediction.grad is not None
    assert target.grad is None
    with pytest.raises(ValueError, match="equal shapes"):
        distillation_loss(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))
