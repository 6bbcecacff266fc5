from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.quantizers import NormalizedQuantizer, VanillaQuantizer
from semhitok.quantizers.kmeans import kmeans

sizes = {"batch": st.integers(1, 3), "tokens": st.integers(1, 9), "size": st.integers(1, 20), "dim": st.integers(1, 6)}


@settings(max_examples=20, deadline=None)
@given(**sizes)
def test_vanilla_contract(batch: int, tokens: int, size: int, dim: int) -> None:
    quantizer = VanillaQuantizer(size, dim)
    torch.nn.init.normal_(quantizer.codebook_KD)
    z_BND = torch.randn(batch, tokens, dim, requires_grad=True)
    output = quantizer(z_BND)
    distances = (z_BND[:, :, None] - quantizer.codebook_KD).double().norm(dim=-1)
    torch.testing.assert_close(
        distances.gather(2, output.ids[..., None])[..., 0], distances.amin(2), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(output.codes, quantizer.lookup(output.ids))
    error = z_BND.detach() - quantizer.codebook_KD.detach()[output.ids]
    for loss in output.losses.values():
        torch.testing.assert_close(loss, error.square().mean())
    weights = torch.randn_like(z_BND)
    output.codes.backward(weights, retain_graph=True)
    assert torch.equal(z_BND.grad, weights)
    assert quantizer.codebook_KD.grad is None
    (gradient,) = torch.autograd.grad(output.losses["commitment"], z_BND, retain_graph=True)
    torch.testing.assert_close(gradient, 2 * error / error.numel())
    (gradient,) = torch.autograd.grad(output.losses["codebook"], quantizer.codebook_KD)
    expected = torch.zeros(size, dim).index_add_(0, output.ids.flatten(), -2 * error.flatten(0, 1) / error.numel())
    torch.testing.assert_close(gradient, expected)


@settings(max_examples=20, deadline=None)
@given(**sizes)
def test_normalized_contract(batch: int, tokens: int, size: int, dim: int) -> None:
    quantizer = NormalizedQuantizer(size, dim)
    z_BND = 5 * torch.randn(batch, tokens, dim)
    output = quantizer(z_BND)
    cosines = F.cosine_similarity(z_BND[:, :, None].double(), quantizer.codebook_KD.double(), dim=-1)
    torch.testing.assert_close(cosines.gather(2, output.ids[..., None])[..., 0], cosines.amax(2), rtol=0, atol=1e-5)
    assert torch.equal(output.codes, quantizer.lookup(output.ids))
    torch.testing.assert_close(output.codes.norm(dim=-1), torch.ones(batch, tokens))
    # Between unit vectors |a - b|^2 = 2 - 2 cos.
    expected = ((2 - 2 * cosines.amax(2)) / dim).mean().float()
    for loss in output.losses.values():
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_normalized_gradients() -> None:
    quantizer = NormalizedQuantizer(7, 4)
    z_BND = (3 * torch.randn(2, 5, 4)).requires_grad_()
    output = quantizer(z_BND)
    weights = torch.randn(2, 5, 4)
    (gradient,) = torch.autograd.grad((output.codes * weights).sum(), z_BND, retain_graph=True)
    (expected,) = torch.autograd.grad((F.normalize(z_BND, dim=-1) * weights).sum(), z_BND)
    torch.testing.assert_close(gradient, expected)
    (gradient,) = torch.autograd.grad(output.losses["codebook"], quantizer.codebook_KD)
    assert set(gradient.abs().sum(1).nonzero().squeeze(1).tolist()) == set(output.ids.flatten().tolist())


@pytest.mark.parametrize("build", [VanillaQuantizer, NormalizedQuantizer])
def test_autocast_and_low_precision(build: type) -> None:
    quantizer = build(30, 8)
    quantizer.initialise(torch.randn(100, 8), seed=0)
    z_BND = torch.randn(2, 40, 8)
    expected = quantizer(z_BND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z_BND)
    assert torch.equal(found.ids, expected.ids)
    for name, loss in expected.losses.items():
        assert torch.equal(found.losses[name], loss)
    assert quantizer(z_BND.bfloat16()).codes.dtype == torch.bfloat16


@pytest.mark.parametrize("build", [VanillaQuantizer, NormalizedQuantizer])
def test_initialise_and_replace_dead_codes(build: type) -> None:
    quantizer = build(16, 4)
    z_ND = torch.randn(200, 4)
    quantizer.initialise(z_ND, seed=3)
    assert quantizer.codebook_KD.requires_grad
    assert torch.equal(quantizer.codebook_KD, kmeans(z_ND, 16, seed=3, spherical=build is NormalizedQuantizer))
    before = quantizer.codebook_KD.detach().clone()
    dead_K = torch.arange(16) % 4 == 1
    fresh_ND = torch.randn(50, 4)
    assert quantizer.replace_dead_codes(dead_K, fresh_ND, seed=0, step=0) == 4
    revived = quantizer.codebook_KD.detach()
    assert torch.equal(revived[~dead_K], before[~dead_K])
    pool = fresh_ND if build is VanillaQuantizer else F.normalize(fresh_ND, dim=-1)
    assert (revived[dead_K][:, None] == pool).all(-1).any(1).all()
