"""IBQ, projected tables, shared indices and factorised codebooks against formulas by hand, brute force and the library."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vector_quantize_pytorch import SimVQ

from semhitok.quantizers import (
    IndexBackpropagationQuantizer,
    MultiCodebookQuantizer,
    ProjectedQuantizer,
    SharedIndexQuantizer,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_index_backpropagation_by_the_formula_of_the_paper():
    quantizer = IndexBackpropagationQuantizer(9, 4, temperature=0.3)
    with torch.no_grad():
        quantizer.codebook_KD.copy_(randn(9, 4))
    z, weight = randn(2, 5, 4, seed=1).requires_grad_(), randn(2, 5, 4, seed=2)
    found = quantizer(z)

    codes = quantizer.codebook_KD.detach().clone().requires_grad_()
    logits = torch.einsum("bnd,kd->bnk", z, codes)
    soft = logits.softmax(-1)
    hard = F.one_hot(logits.argmax(-1), 9).float()
    one_hot = hard - soft.detach() + soft  # equation 4 there
    chosen, plain = one_hot @ codes, hard @ codes
    assert torch.equal(found.ids, logits.argmax(-1))
    assert torch.equal(found.codes, quantizer.lookup(found.ids))
    p = (logits / 0.3).softmax(-1).flatten(0, 1)
    expected = {
        "index": (chosen - z).square().mean(),
        "commitment": (plain.detach() - z).square().mean(),
        "codebook": (plain - z.detach()).square().mean(),
        "token_entropy": -(p * p.log()).sum(-1).mean(),
        "diversity": (p.mean(0) * p.mean(0).log()).sum(),
    }
    assert found.losses.keys() == expected.keys()
    own = (z, quantizer.codebook_KD)
    for ours, theirs in (
        *((found.losses[name], expected[name]) for name in expected),
        ((found.codes * weight).sum(), (chosen * weight).sum()),
    ):
        torch.testing.assert_close(ours, theirs)
        pairs = zip(
            torch.autograd.grad(ours, own, retain_graph=True, allow_unused=True),
            torch.autograd.grad(theirs, (z, codes), retain_graph=True, allow_unused=True),
            strict=True,
        )
        for left, right in pairs:
            assert (left is None) == (right is None)
            if left is not None:
                torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)
    every_code = torch.autograd.grad((found.codes * weight).sum(), quantizer.codebook_KD)[0]
    assert (every_code.abs().sum(-1) > 0).all(), "gradients reach codes that no feature chose"


def test_a_projected_table_is_the_librarys_simvq():
    transform = torch.nn.Linear(6, 6)
    theirs = SimVQ(dim=6, codebook_size=20, rotation_trick=False, codebook_transform=transform).train()
    ours = ProjectedQuantizer(20, 6, 6)
    with torch.no_grad():
        ours.table_KT.copy_(theirs.frozen_codebook)
        ours.projection_TD.copy_(transform.weight.T)
        ours.bias_D.copy_(transform.bias)
    z = randn(2, 7, 6).requires_grad_()
    found, (codes, ids, loss) = ours(z), theirs(z)
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close(found.codes, codes)
    assert torch.equal(found.codes, ours.lookup(found.ids).detach())
    both = found.losses["codebook"] + 0.25 * found.losses["commitment"]
    torch.testing.assert_close(both, loss)
    found, expected = (
        torch.autograd.grad(both, (ours.projection_TD, ours.bias_D)),
        torch.autograd.grad(loss, transform.parameters()),
    )
    torch.testing.assert_close(found, (expected[0].T, expected[1]))


def test_projected_codes_begin_shorter_than_features():
    # Longer ones collapse: of 4,096 codes of length 5.7, 24 were used after training. SimVQ's code begins with a table of standard
    # deviation T^-0.5 behind nn.Linear, that is with a mean squared length of 1/3.
    torch.manual_seed(0)
    random, clustered = ProjectedQuantizer(4096, 32, 32), ProjectedQuantizer(4096, 320, 8)
    clustered.set_table(torch.randn(4096, 320) * 5 + 3)
    reference = torch.nn.Linear(32, 32, bias=False)(torch.randn(4096, 32) * 32**-0.5)
    for codes in (random.codes(), clustered.codes(), reference):
        assert codes.square().sum(-1).mean().item() == pytest.approx(1 / 3, rel=0.15)


def test_small_codes_of_index_backpropagation_all_get_gradients_and_stay_as_they_are():
    torch.manual_seed(0)
    quantizer, z = IndexBackpropagationQuantizer(64, 4), randn(2, 50, 4)
    before = quantizer.codebook_KD.detach().clone()
    quantizer.initialise(z.flatten(0, 1), seed=0)
    assert quantizer.replace_dead_codes(torch.ones(64, dtype=torch.bool), z.flatten(0, 1), seed=0, step=1) == 0
    assert torch.equal(quantizer.codebook_KD, before)
    gradient = torch.autograd.grad(quantizer(z).losses["index"], quantizer.codebook_KD)[0]
    assert (gradient.abs().sum(-1) > 0).all()


def test_a_clustered_table_stays_as_it_was_set():
    quantizer, table = ProjectedQuantizer(5, 3, 2), randn(5, 3) * 7 + 2
    quantizer.set_table(table)
    assert not quantizer.table_KT.requires_grad
    torch.testing.assert_close(quantizer.table_KT.square().sum(dim=1).mean(), torch.tensor(1.0))
    distances = torch.cdist(table, table) / torch.cdist(quantizer.table_KT, quantizer.table_KT).clamp_min(1e-9)
    off = ~torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(distances[off], distances[off][0].expand(20))
    with pytest.raises(ValueError, match=r"must have shape \(5, 3\), got \(4, 3\)"):
        quantizer.set_table(table[:4])


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_a_shared_index_has_the_smallest_sum_of_both_distances(weight: float):
    quantizer = SharedIndexQuantizer(30, 5, 3, semantic_weight=weight)
    z = randn(2, 40, 8).requires_grad_()
    found = quantizer(z)
    (semantic, pixel), (codes_s, codes_p) = (x.detach().split([5, 3], dim=-1) for x in (z, quantizer.codebook_KD))
    for b, n in itertools.product(range(2), range(40)):
        sums = [
            weight * (F.normalize(semantic[b, n], dim=0) - F.normalize(codes_s[k], dim=0)).square().sum()
            + (F.normalize(pixel[b, n], dim=0) - F.normalize(codes_p[k], dim=0)).square().sum()
            for k in range(30)
        ]
        assert torch.stack(sums).argmin() == found.ids[b, n]
    assert torch.equal(found.codes, quantizer.lookup(found.ids).detach())
    own = torch.cat([F.normalize(codes_s, dim=-1), F.normalize(codes_p, dim=-1)], dim=-1)[found.ids]
    torch.testing.assert_close(found.codes.detach(), own)
    unit = torch.cat([F.normalize(part, dim=-1) for part in z.split([5, 3], dim=-1)], dim=-1)
    squared = (unit - own).square()
    torch.testing.assert_close(found.losses["commitment"], squared[..., :5].mean() + squared[..., 5:].mean())
    scale = randn(2, 40, 8, seed=3)
    torch.testing.assert_close(
        torch.autograd.grad((found.codes * scale).sum(), z, retain_graph=True)[0],
        torch.autograd.grad((unit * scale).sum(), z)[0],
    )


def test_factors_are_pushed_apart_by_their_squared_cosines():
    quantizer = MultiCodebookQuantizer(3, 7, 12, disentangle=True)
    quantizer.initialise(randn(200, 12), seed=0)
    z = randn(2, 9, 12, seed=5).requires_grad_()
    found = quantizer(z)
    chunks = found.codes.detach().unflatten(-1, (3, 4))
    pairs = [(chunks[:, :, i] * chunks[:, :, j]).sum(-1).square().mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(found.losses["disentanglement"], torch.stack(pairs).mean())
    assert torch.autograd.grad(found.losses["disentanglement"], z)[0].norm() > 0
    assert "disentanglement" not in MultiCodebookQuantizer(3, 7, 12)(z).losses
