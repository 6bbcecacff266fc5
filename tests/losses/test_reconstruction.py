import pytest
import torch

from semhitok.losses import l1_loss, l2_loss


def test_hand_computed():
    prediction = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]]])
    target = torch.tensor([[[[0.0, -1.0], [-0.5, 1.0]]]])
    assert l1_loss(prediction, target).item() == pytest.approx((1 + 0 + 1 + 1) / 4)


def test_precision_and_gradient():
    prediction = torch.full((2, 3, 4, 4), 0.5, dtype=torch.bfloat16, requires_grad=True)
    target = torch.full((2, 3, 4, 4), 0.501, requires_grad=True)
    loss = l1_loss(prediction, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.001, rel=1e-3)  # bf16 would round the target to 0.5
    loss.backward()
    assert target.grad is None
    assert prediction.grad is not None
    torch.testing.assert_close(prediction.grad, torch.full_like(prediction, -1 / prediction.numel()))


def test_refuses_a_broadcast():
    with pytest.raises(ValueError, match="equal shapes"):
        l1_loss(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))


def test_l2_is_the_mean_squared_error_and_spares_the_target():
    prediction = torch.tensor([[1.0, -1.0]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = l2_loss(prediction, target)
    assert loss.item() == pytest.approx((1 + 4) / 2)
    loss.backward()
    assert prediction.grad.tolist() == [[1.0, -2.0]]
    assert target.grad is None
    with pytest.raises(ValueError, match="l2_loss compares equal shapes"):
        l2_loss(prediction, target[0])
