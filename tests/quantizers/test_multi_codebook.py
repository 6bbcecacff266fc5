"""MCQ against brute force in fp64 and against vector-quantize-pytorch, and its upkeep: k-means and revival."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from semhitok.quantizers import MultiCodebookQuantizer, NormalizedQuantizer


def by_hand(z_BND: Tensor, codebooks_CKc: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine of every chunk to its codebook and its place, one pair at a time; both (B,N,C)."""
    batch, tokens, _ = z_BND.shape
    count, size, chunk = codebooks_CKc.shape
    best = torch.full((batch, tokens, count), -2.0, dtype=torch.float64)
    ids = torch.zeros(batch, tokens, count, dtype=torch.int64)
    for b, n, c, k in itertools.product(*map(range, (batch, tokens, count, size))):
        vector, code = z_BND[b, n, c * chunk : (c + 1) * chunk].double(), codebooks_CKc[c, k].double()
        cosine = vector @ code / (vector.norm() * code.norm())
        if cosine > best[b, n, c]:
            best[b, n, c], ids[b, n, c] = cosine, k
    return best, ids


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 2),
    tokens=st.integers(1, 5),
    count=st.integers(1, 3),
    size=st.integers(1, 7),
    chunk=st.integers(1, 4),
)
def test_contract(batch: int, tokens: int, count: int, size: int, chunk: int) -> None:
    quantizer = MultiCodebookQuantizer(count, size, count * chunk)
    z_BND = 5 * torch.randn(batch, tokens, count * chunk)
    output = quantizer(z_BND)
    codebooks_CKc = quantizer.codebooks_CKc.detach()
    cosines, _ = by_hand(z_BND, codebooks_CKc)
    assert output.ids.shape == (batch, tokens, count)
    assert output.ids.dtype == torch.int64
    codes = output.codes.unflatten(-1, (count, chunk)).double()
    chunks = F.normalize(z_BND.unflatten(-1, (count, chunk)).double(), dim=-1)
    torch.testing.assert_close((codes * chunks).sum(-1), cosines, rtol=0, atol=1e-6)
    for c in range(count):
        row = codebooks_CKc[c, output.ids[..., c]]
        torch.testing.assert_close(codes[:, :, c].float(), row / row.norm(dim=-1, keepdim=True))
    assert torch.equal(output.codes, quantizer.lookup(output.ids))
    # Between unit vectors |a - b|^2 = 2 - 2 cos; the mean over codebooks of the mean over a chunk's channels.
    expected = ((2 - 2 * cosines) / chunk).mean(dim=(0, 1)).mean().float()
    assert set(output.losses) == {"codebook", "commitment"}
    for loss in output.losses.values():
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_ids_of_a_well_spread_codebook_by_brute_force() -> None:
    quantizer, z_BND = MultiCodebookQuantizer(4, 16, 32), torch.randn(2, 25, 32)
    _, expected = by_hand(z_BND, quantizer.codebooks_CKc.detach())
    assert len(expected.unique()) == 16
    assert torch.equal(quantizer(z_BND).ids, expected)


def test_ids_and_codes_equal_vector_quantize_pytorch() -> None:
    count, size, chunk = 4, 16, 6
    quantizer, z_BND = MultiCodebookQuantizer(count, size, count * chunk), torch.randn(3, 20, count * chunk)
    peer = VectorQuantize(
        dim=count * chunk,
        codebook_size=size,
        codebook_dim=chunk,
        heads=count,
        separate_codebook_per_head=True,
        use_cosine_sim=True,
        rotation_trick=False,
    ).eval()
    peer.project_in, peer.project_out = torch.nn.Identity(), torch.nn.Identity()
    peer._codebook.embed.copy_(F.normalize(quantizer.codebooks_CKc.detach(), dim=-1))
    codes, ids, _ = peer(z_BND)
    output = quantizer(z_BND)
    assert torch.equal(output.ids, ids)
    torch.testing.assert_close(output.codes, codes)


def test_one_codebook_is_the_normalised_quantizer() -> None:
    quantizer, flat = MultiCodebookQuantizer(1, 9, 5), NormalizedQuantizer(9, 5)
    flat.codebook_KD.data = quantizer.codebooks_CKc.data[0]
    z_BND = torch.randn(2, 6, 5)
    output, expected = quantizer(z_BND), flat(z_BND)
    assert torch.equal(output.ids[..., 0], expected.ids)
    assert torch.equal(output.codes, expected.codes)
    for name, loss in expected.losses.items():
        torch.testing.assert_close(output.losses[name], loss)


def test_gradients_are_straight_through_to_the_normalised_chunks() -> None:
    quantizer = MultiCodebookQuantizer(2, 7, 8)
    z_BND = (3 * torch.randn(2, 5, 8)).requires_grad_()
    output, weights = quantizer(z_BND), torch.randn(2, 5, 8)
    (gradient,) = torch.autograd.grad((output.codes * weights).sum(), z_BND, retain_graph=True)
    unit = torch.cat([F.normalize(part, dim=-1) for part in z_BND.chunk(2, dim=-1)], dim=-1)
    (expected,) = torch.autograd.grad((unit * weights).sum(), z_BND, retain_graph=True)
    torch.testing.assert_close(gradient, expected)
    (gradient,) = torch.autograd.grad(output.losses["commitment"], z_BND, retain_graph=True)
    (expected,) = torch.autograd.grad((unit - output.codes.detach()).square().mean(), z_BND)
    torch.testing.assert_close(gradient, expected)
    (gradient,) = torch.autograd.grad(output.losses["codebook"], quantizer.codebooks_CKc)
    for number in range(2):
        used = gradient[number].abs().sum(1).nonzero().squeeze(1).tolist()
        assert set(used) == set(output.ids[..., number].flatten().tolist())


def test_autocast_and_low_precision() -> None:
    quantizer, z_BND = MultiCodebookQuantizer(2, 50, 8), torch.randn(2, 40, 8)
    expected = quantizer(z_BND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z_BND)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.codes, expected.codes)
    assert all(torch.equal(loss, expected.losses[name]) for name, loss in found.losses.items())
    low = quantizer.to(torch.bfloat16)(z_BND.bfloat16())
    assert torch.equal(low.ids, quantizer(z_BND.bfloat16().float()).ids)
    assert low.codes.dtype == torch.bfloat16
    assert quantizer.codebooks_CKc.dtype == torch.float32


def test_codes_start_uniformly_as_in_the_released_code() -> None:
    codebooks = MultiCodebookQuantizer(8, 4096, 64).codebooks_CKc.detach()
    bound = 8**-0.5 / 36
    assert bound * 0.999 < float(codebooks.abs().max()) <= bound
    assert float(codebooks.std()) == pytest.approx(bound / 3**0.5, rel=0.01)


def test_nothing_changes_in_the_forward_pass() -> None:
    quantizer = MultiCodebookQuantizer(2, 5, 4).train()
    assert not list(quantizer.buffers())
    before = quantizer.codebooks_CKc.detach().clone()
    quantizer(torch.randn(2, 9, 4))
    assert torch.equal(quantizer.codebooks_CKc, before)


def test_initialise_finds_the_directions_of_every_chunk() -> None:
    directions_CKc = F.normalize(torch.randn(3, 6, 8), dim=-1)
    ids_NC = torch.stack([torch.randperm(600) % 6 for _ in range(3)], dim=1)
    z_NCc = directions_CKc[torch.arange(3), ids_NC] + 0.001 * torch.randn(600, 3, 8)
    z_ND = (z_NCc * torch.rand(600, 3, 1).add(0.5)).flatten(1)
    quantizer = MultiCodebookQuantizer(3, 30, 24)
    before = float(quantizer(z_ND[None]).losses["commitment"])
    quantizer.initialise(z_ND, seed=4)
    output = quantizer(z_ND[None])
    assert float(output.losses["commitment"]) < before / 20
    cosines = torch.einsum("ckd,cjd->cjk", F.normalize(quantizer.codebooks_CKc.detach(), dim=-1), directions_CKc)
    assert float(cosines.amax(2).min()) > 0.99, "every direction of a chunk has a code in its own codebook"
    again = MultiCodebookQuantizer(3, 30, 24)
    again.initialise(z_ND, seed=4)
    assert torch.equal(again.codebooks_CKc, quantizer.codebooks_CKc)


def test_the_dead_are_replaced_in_each_codebook_alone() -> None:
    quantizer, z_ND = MultiCodebookQuantizer(2, 5, 6), torch.randn(30, 6)
    before = quantizer.codebooks_CKc.detach().clone()
    dead_CK = torch.tensor([[False, True, False, False, True], [True, False, False, False, False]])
    assert quantizer.replace_dead_codes(dead_CK, z_ND, seed=1, step=9) == 3
    after = quantizer.codebooks_CKc.detach()
    assert torch.equal(after[~dead_CK], before[~dead_CK])
    for number, chunk_Nc in enumerate(z_ND.chunk(2, dim=1)):
        distances = torch.cdist(after[number][dead_CK[number]].double(), F.normalize(chunk_Nc.double(), dim=-1))
        assert float(distances.amin(1).max()) < 1e-6, "a revived code is a chunk of one of the vectors"
    assert not torch.equal(*(_revived(z_ND, dead_CK, step) for step in (1, 2)))
    assert torch.equal(*(_revived(z_ND, dead_CK, 1) for _ in range(2)))


def _revived(z_ND: Tensor, dead_CK: Tensor, step: int) -> Tensor:
    torch.manual_seed(7)
    quantizer = MultiCodebookQuantizer(2, 5, 6)
    quantizer.replace_dead_codes(dead_CK, z_ND, seed=1, step=step)
    return quantizer.codebooks_CKc.detach()


def test_a_collapsed_codebook_is_brought_back_to_use() -> None:
    quantizer, z_ND = MultiCodebookQuantizer(2, 32, 8), torch.randn(4000, 8)
    with torch.no_grad():
        quantizer.codebooks_CKc[:, 4:] = quantizer.codebooks_CKc[:, :1]
    assert int(_dead(quantizer, z_ND).sum()) >= 56
    for step in range(3):
        quantizer.replace_dead_codes(_dead(quantizer, z_ND), z_ND, seed=0, step=step)
    assert int(_dead(quantizer, z_ND).sum()) == 0


def _dead(quantizer: MultiCodebookQuantizer, z_ND: Tensor) -> Tensor:
    ids_NC = quantizer(z_ND[None]).ids[0]
    return torch.stack([ids_N.bincount(minlength=32) == 0 for ids_N in ids_NC.unbind(1)])


def test_chunks_of_unequal_width() -> None:
    with pytest.raises(ValueError, match="10 channels cannot be split into 4 chunks of equal width"):
        MultiCodebookQuantizer(4, 8, 10)
