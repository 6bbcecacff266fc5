"""The chunked loss against torch's own cross entropy, and what it holds in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semhitok.losses.large_head import BLOCK_ROWS, GPU_CHUNK_BYTES, chunk_tokens_for, large_head_loss


def inputs(tokens: int = 23, rows: int = 301, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = torch.randn(rows, width, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(rows, (tokens,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
def test_loss_and_gradients_are_those_of_torch(chunk: int):
    hidden, weight, targets = inputs()
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    (expected.sum() * 0.3).backward()
    wanted = [hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    total, losses = large_head_loss(hidden, weight, targets, chunk_tokens=chunk)
    (total * 0.3).backward()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(total.detach(), expected.sum().detach())
    torch.testing.assert_close([hidden.grad, weight.grad], wanted)
    assert not losses.requires_grad


def test_each_token_counts_by_its_factor():
    hidden, weight, targets = inputs()
    factors = torch.linspace(0.1, 2, len(targets))
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    wanted = torch.autograd.grad((plain * factors).sum() * 0.5, (hidden, weight))
    total, losses = large_head_loss(hidden, weight, targets, factors_N=factors, chunk_tokens=7)
    found = torch.autograd.grad(total * 0.5, (hidden, weight))
    torch.testing.assert_close(total, (plain * factors).sum())
    torch.testing.assert_close(losses, plain.detach())
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match=r"one value for each of 23 targets, got \(3,\)"):
        large_head_loss(hidden, weight, targets, factors_N=factors[:3])


def test_under_autocast_it_follows_the_plain_loss_under_autocast():
    hidden, weight, targets = inputs(rows=BLOCK_ROWS + 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")
        total, _ = large_head_loss(hidden, weight, targets, chunk_tokens=10)
    expected.backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    wanted = [hidden.grad.clone(), weight.grad.clone()]
    hidden.grad = weight.grad = None
    total.backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-4)
    for gradient, reference in zip((hidden.grad, weight.grad), wanted, strict=True):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert float((gradient - reference).norm() / reference.norm()) < 2e-2


def test_a_frozen_head_or_no_gradient_at_all():
    hidden, weight, targets = inputs()
    frozen = weight.detach()
    large_head_loss(hidden, frozen, targets)[0].backward()
    expected = torch.autograd.grad(F.cross_entropy(hidden @ frozen.T, targets, reduction="sum"), hidden)[0]
    torch.testing.assert_close(hidden.grad, expected)
    with torch.no_grad():
        total, _ = large_head_loss(hidden, weight, targets)
    assert not total.requires_grad


def test_no_tokens_give_zero_and_zero_gradients():
    hidden, weight, targets = inputs(tokens=0)
    total, losses = large_head_loss(hidden, weight, targets)
    total.backward()
    assert float(total) == 0
    assert losses.shape == (0,)
    assert weight.grad is not None
    assert not weight.grad.any()


class Largest(TorchDispatchMode):
    """The most elements that any result of an operation had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_logits_of_all_tokens_never_exist():
    hidden, weight, targets = inputs(tokens=512, rows=1000)
    with Largest() as plain:
        F.cross_entropy(hidden @ weight.T, targets).backward()
    with Largest() as chunked:
        large_head_loss(hidden, weight, targets, chunk_tokens=16)[0].backward()
    assert plain.elements == 512 * 1000
    assert chunked.elements == 16 * 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets_N": torch.tensor([301])}, r"targets must lie in \[0, 301\), got 301"),
        ({"targets_N": torch.tensor([-100])}, "got -100"),
        ({"targets_N": torch.zeros(2, dtype=torch.long)}, r"got \(1, 8\), \(301, 8\) and \(2,\)"),
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str):
    hidden, weight, targets = inputs(tokens=1)
    with pytest.raises(ValueError, match=message):
        large_head_loss(**({"hidden_ND": hidden, "weight_VD": weight, "targets_N": targets} | change))


def test_a_gpu_gets_chunks_as_large_as_the_bytes_allow():
    assert chunk_tokens_for("cpu", 10**6) == 128
    for rows in (1000, 40_000, 152_064, 348_672, 500_000):
        chunk = chunk_tokens_for("cuda", rows)
        assert 1024 <= chunk <= 4096
        assert 4 * chunk * rows <= GPU_CHUNK_BYTES
        assert chunk == 4096 or 8 * chunk * rows > GPU_CHUNK_BYTES, "twice as many would fit"
    assert chunk_tokens_for("cuda", 10**7) == 1024  # fewer would be slower, more would not fit


def test_the_default_chunk_is_the_devices(monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr("semhitok.losses.large_head.chunk_tokens_for", lambda *seen: given.append(seen) or 7)
    hidden, weight, targets = inputs()
    assert torch.equal(
        large_head_loss(hidden, weight, targets)[1], large_head_loss(hidden, weight, targets, chunk_tokens=7)[1]
    )
    assert given == [("cpu", 301)]
