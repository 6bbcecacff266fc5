"""FSQ, LFQ, BSQ and grouped signs against vector-quantize-pytorch, and their entropies against the table of all codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from vector_quantize_pytorch import FSQ, LFQ

from semhitok.quantizers import BinaryQuantizer, FiniteScalarQuantizer


def gradient_of(value: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(value, z, retain_graph=True)[0]


@pytest.mark.parametrize("levels", [(8, 8, 8, 8), (7, 5, 5), (4, 3)])
def test_finite_scalars_are_the_librarys_with_their_gradients(levels: tuple[int, ...]):
    z = (torch.randn(3, 40, len(levels)) * 2).requires_grad_()
    ours, theirs = FiniteScalarQuantizer(levels), FSQ(list(levels)).train()
    found, (codes, ids) = ours(z), theirs(z)
    assert torch.equal(found.ids, ids.long())
    torch.testing.assert_close(found.codes, codes)
    weight = torch.randn(codes.shape)
    torch.testing.assert_close(gradient_of((found.codes * weight).sum(), z), gradient_of((codes * weight).sum(), z))
    everything = torch.arange(math.prod(levels))[None]
    torch.testing.assert_close(ours.lookup(everything), theirs.indices_to_codes(everything))
    assert torch.equal(found.codes, ours.lookup(found.ids))
    assert found.losses == {}


@pytest.mark.parametrize(("groups", "bits", "spherical"), [(1, 5, False), (1, 6, True), (3, 4, False), (2, 1, False)])
def test_signs_are_the_librarys_with_their_losses_and_gradients(groups: int, bits: int, spherical: bool):
    temperature = 0.5
    z = torch.randn(2, 30, groups * bits, requires_grad=True)
    ours = BinaryQuantizer(groups, bits, spherical=spherical, temperature=temperature)
    theirs = LFQ(codebook_size=2**bits, dim=groups * bits, num_codebooks=groups, spherical=spherical).train()
    found = ours(z)
    (codes, ids, _), parts = theirs(z, inv_temperature=1 / temperature, return_loss_breakdown=True)
    assert torch.equal(found.ids, ids.long())
    torch.testing.assert_close(found.codes, codes)
    assert torch.equal(found.codes, ours.lookup(found.ids))
    torch.testing.assert_close(found.losses["token_entropy"], parts.per_sample_entropy, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.losses["diversity"], -parts.batch_entropy, atol=1e-4, rtol=1e-4)
    for ours_term, theirs_term in (
        (found.losses["token_entropy"], parts.per_sample_entropy),
        (found.losses["diversity"], -parts.batch_entropy),
    ):
        torch.testing.assert_close(gradient_of(ours_term, z), gradient_of(theirs_term, z), atol=1e-4, rtol=1e-3)
    unit = torch.nn.functional.normalize(z, dim=-1) if spherical else z
    torch.testing.assert_close(found.losses["commitment"], (unit - found.codes.detach()).square().mean())
    weight = torch.randn(codes.shape)
    torch.testing.assert_close(gradient_of((found.codes * weight).sum(), z), gradient_of((codes * weight).sum(), z))


def test_confident_bits_keep_finite_entropies_and_gradients():
    z = torch.full((1, 4, 6), 9.0, requires_grad=True)
    losses = BinaryQuantizer(1, 6, temperature=0.01)(z).losses
    assert losses["token_entropy"].item() == pytest.approx(0, abs=1e-6)
    assert losses["diversity"].item() == pytest.approx(0, abs=1e-6)
    assert gradient_of(losses["token_entropy"] + losses["diversity"], z).isfinite().all()


def test_numbers_without_codes_are_refused():
    with pytest.raises(ValueError, match=r"at least one channel of at least 3 levels each, got \[3, 2\]"):
        FiniteScalarQuantizer((3, 2))
    with pytest.raises(ValueError, match=r"1 to 24 bits and a temperature above 0, got 2 of 30 at 0\.01"):
        BinaryQuantizer(2, 30)
