"""RQ against a loop written out, against vector-quantize-pytorch, and its upkeep: k-means and revival."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from semhitok.quantizers import ResidualQuantizer, VanillaQuantizer


def built(depth: int = 3, size: int = 12, dim: int = 5) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(depth, size, dim)
    scales = torch.linspace(1, 0.1, size)[:, None]  # some codes for features, some for what is left of them
    torch.nn.init.normal_(quantizer.codebook_KD).data *= scales
    return quantizer


def by_hand(z_BND: Tensor, codebook_KD: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Ids (B,N,C) and partial sums (C,B,N,D), vector by vector in fp64."""
    batch, tokens, dim = z_BND.shape
    ids = torch.zeros(batch, tokens, depth, dtype=torch.int64)
    sums = torch.zeros(depth, batch, tokens, dim, dtype=torch.float64)
    for b, n in itertools.product(range(batch), range(tokens)):
        total = torch.zeros(dim, dtype=torch.float64)
        for d in range(depth):
            left = z_BND[b, n].double() - total
            distances = [float((left - code.double()).square().sum()) for code in codebook_KD]
            ids[b, n, d] = distances.index(min(distances))
            total = total + codebook_KD[ids[b, n, d]].double()
            sums[d, b, n] = total
    return ids, sums


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_ids_codes_and_losses_by_brute_force(depth: int) -> None:
    quantizer, z_BND = built(depth), torch.randn(2, 30, 5)
    ids, sums = by_hand(z_BND, quantizer.codebook_KD.detach(), depth)
    output = quantizer(z_BND)
    assert torch.equal(output.ids, ids)
    assert len(ids.unique()) > 6
    torch.testing.assert_close(output.codes, sums[-1].float())
    assert torch.equal(output.codes, quantizer.lookup(output.ids))
    expected = torch.stack([(z_BND - partial).square().mean() for partial in sums]).mean().float()
    assert set(output.losses) == {"codebook", "commitment"}
    for loss in output.losses.values():
        torch.testing.assert_close(loss, expected)


def test_ids_and_codes_equal_vector_quantize_pytorch() -> None:
    quantizer, z_BND = built(4), torch.randn(3, 40, 5)
    peer = ResidualVQ(dim=5, num_quantizers=4, codebook_size=12, shared_codebook=True, rotation_trick=False).eval()
    for layer in peer.layers:
        layer._codebook.embed.copy_(quantizer.codebook_KD.detach()[None])
    codes, ids, _ = peer(z_BND)
    output = quantizer(z_BND)
    assert torch.equal(output.ids, ids)
    torch.testing.assert_close(output.codes, codes)


def test_one_depth_is_the_vanilla_quantizer() -> None:
    quantizer, flat = built(1), VanillaQuantizer(12, 5)
    flat.codebook_KD.data = quantizer.codebook_KD.data
    z_BND = torch.randn(2, 20, 5)
    output, expected = quantizer(z_BND), flat(z_BND)
    assert torch.equal(output.ids[..., 0], expected.ids)
    assert torch.equal(output.codes, expected.codes)
    for name, loss in expected.losses.items():
        torch.testing.assert_close(output.losses[name], loss)


def test_every_depth_comes_closer() -> None:
    z_ND = torch.randn(2000, 6)
    errors = []
    for depth in (1, 2, 4):
        quantizer = ResidualQuantizer(depth, 64, 6)
        quantizer.initialise(z_ND, seed=0)
        errors.append(float((quantizer(z_ND[None]).codes[0] - z_ND).square().mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2]


def test_gradients() -> None:
    quantizer, z_BND = built(), torch.randn(2, 9, 5, requires_grad=True)
    output, weights = quantizer(z_BND), torch.randn(2, 9, 5)
    (gradient,) = torch.autograd.grad((output.codes * weights).sum(), z_BND, retain_graph=True)
    assert torch.equal(gradient, weights)
    _, sums = by_hand(z_BND.detach(), quantizer.codebook_KD.detach(), 3)
    errors = z_BND.detach() - sums.float()
    (gradient,) = torch.autograd.grad(output.losses["commitment"], z_BND, retain_graph=True)
    torch.testing.assert_close(gradient, 2 * errors.mean(0) / z_BND.numel())
    assert torch.autograd.grad(output.losses["codebook"], z_BND, retain_graph=True, allow_unused=True) == (None,)
    (gradient,) = torch.autograd.grad(output.losses["codebook"], quantizer.codebook_KD)
    expected = torch.zeros(12, 5)
    for d in range(3):  # the code of a depth is part of this partial sum and of all later ones
        pull = -2 * errors[d:].sum(0) / (3 * z_BND.numel())
        expected.index_add_(0, output.ids[..., d].flatten(), pull.flatten(0, 1))
    torch.testing.assert_close(gradient, expected)


def test_autocast_and_low_precision() -> None:
    quantizer, z_BND = built(3, 50, 8), torch.randn(2, 40, 8)
    expected = quantizer(z_BND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z_BND)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.codes, expected.codes)
    low = quantizer.to(torch.bfloat16)(z_BND.bfloat16())
    assert torch.equal(low.ids, quantizer(z_BND.bfloat16().float()).ids)
    assert low.codes.dtype == torch.bfloat16
    assert quantizer.codebook_KD.dtype == torch.float32


def test_initialise_gives_codes_to_features_and_to_what_is_left() -> None:
    centres_KD, offsets_KD = 10 * torch.eye(4), 0.5 * torch.eye(4)
    z_ND = (centres_KD[:, None] + torch.cat([offsets_KD, -offsets_KD])).flatten(0, 1).repeat(20, 1)
    quantizer = ResidualQuantizer(2, 12, 4)
    quantizer.initialise(z_ND, seed=1, iterations=20)
    sizes = quantizer.codebook_KD.detach().norm(dim=1)
    assert int((sizes > 5).sum()) == 6
    assert int((sizes < 1).sum()) == 6
    output = quantizer(z_ND[None])
    first = quantizer.codebook_KD.detach()[output.ids[0, :, 0]]
    assert float((output.codes[0] - z_ND).square().mean()) < 0.3 * float((first - z_ND).square().mean())
    again = ResidualQuantizer(2, 12, 4)
    again.initialise(z_ND, seed=1, iterations=20)
    assert torch.equal(again.codebook_KD, quantizer.codebook_KD)


def test_what_no_depth_uses_is_replaced() -> None:
    quantizer, z_ND = built(2), torch.randn(50, 5)
    before = quantizer.codebook_KD.detach().clone()
    counts_CK = torch.full((2, 12), 9)
    counts_CK[0, [1, 2, 3]] = 0
    counts_CK[1, [2, 3, 4]] = 0
    _, sums = by_hand(z_ND[None], before, 1)
    assert quantizer.replace_dead_codes(quantizer.dead_codes(counts_CK, 0.1), z_ND, seed=1, step=2) == 2
    after = quantizer.codebook_KD.detach()
    changed = (after != before).any(dim=1).nonzero().squeeze(1).tolist()
    assert changed == [2, 3]
    distances = torch.cdist(after[[2, 3]].double(), z_ND.double() - sums[0, 0])
    assert float(distances.amin(1).max()) < 1e-5
