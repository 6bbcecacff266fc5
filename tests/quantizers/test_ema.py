from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import VectorQuantize

from semhitok.quantizers import EMAQuantizer
from semhitok.quantizers.kmeans import kmeans


def trained(rule: str = "sum_count", steps: int = 5) -> EMAQuantizer:
    torch.manual_seed(1)
    quantizer = EMAQuantizer(16, 4, update_rule=rule)  # type: ignore[arg-type]
    for _ in range(steps):
        z_BND = torch.randn(2, 20, 4)
        quantizer.update(quantizer.assignments(z_BND, quantizer(z_BND).ids))
    return quantizer


def test_statistics_equal_vector_quantize_pytorch_over_50_steps() -> None:
    torch.manual_seed(0)
    ours = EMAQuantizer(64, 8, decay=0.99)
    theirs = VectorQuantize(
        dim=8, codebook_size=64, decay=0.99, rotation_trick=False, kmeans_init=False, threshold_ema_dead_code=0
    ).train()
    book = theirs._codebook
    book.embed.data.copy_(ours.codebook_KD[None])
    book.embed_avg.data.copy_(ours.sums_KD[None])
    assert torch.equal(book.cluster_size[0], ours.counts_K)
    for _ in range(50):
        z_BND = torch.randn(4, 32, 8)
        codes_BND, ids_BN, commitment = theirs(z_BND)
        output = ours(z_BND)
        assert torch.equal(output.ids, ids_BN)
        torch.testing.assert_close(output.codes, codes_BND)
        torch.testing.assert_close(output.losses["commitment"], commitment.squeeze())
        ours.update(ours.assignments(z_BND, output.ids))
        torch.testing.assert_close(ours.counts_K, book.cluster_size[0])
        torch.testing.assert_close(ours.sums_KD, book.embed_avg[0])
        torch.testing.assert_close(ours.codebook_KD, book.embed[0])


def test_batch_mean_is_equation_4() -> None:
    quantizer = EMAQuantizer(3, 2, decay=0.9, update_rule="batch_mean")
    quantizer.codebook_KD.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [-50.0, 0.0]]))
    z_BND = torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[10.0, 12.0], [2.0, 1.0]]])
    ids_BN = quantizer(z_BND).ids
    assert ids_BN.tolist() == [[0, 0], [1, 0]]
    quantizer.update(quantizer.assignments(z_BND, ids_BN))
    # 0.9 * (0,0) + 0.1 * mean (2,1);  0.9 * (10,10) + 0.1 * (10,12);  untouched.
    expected = torch.tensor([[0.2, 0.1], [10.0, 10.2], [-50.0, 0.0]])
    torch.testing.assert_close(quantizer.codebook_KD, expected)
    assert torch.equal(quantizer.codebook_KD[2], expected[2])


def test_sum_count_by_hand() -> None:
    quantizer = EMAQuantizer(2, 1, decay=0.5, epsilon=0.5)
    quantizer.codebook_KD.copy_(torch.tensor([[0.0], [8.0]]))
    quantizer.sums_KD.copy_(quantizer.codebook_KD)
    z_BND = torch.tensor([[[1.0], [2.0], [3.0]]])
    quantizer.update(quantizer.assignments(z_BND, quantizer(z_BND).ids))
    assert quantizer.counts_K.tolist() == [2.0, 0.5]
    assert quantizer.sums_KD.tolist() == [[3.0], [4.0]]
    # Laplace: (n + 0.5) / (2.5 + 2 * 0.5) * 2.5
    torch.testing.assert_close(quantizer.codebook_KD, torch.tensor([[3 / (2.5 / 3.5 * 2.5)], [4 / (1 / 3.5 * 2.5)]]))


@pytest.mark.parametrize("rule", ["sum_count", "batch_mean"])
def test_micro_batches_add_up_to_the_batch(rule: str) -> None:
    whole, parts = trained(rule), trained(rule)
    z_BND = torch.randn(6, 20, 4)
    ids_BN = whole(z_BND).ids
    whole.update(whole.assignments(z_BND, ids_BN))
    pieces = [parts.assignments(z, ids) for z, ids in zip(z_BND.split(2), ids_BN.split(2), strict=True)]
    parts.update(pieces[0] + pieces[1] + pieces[2])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor), name


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 3), tokens=st.integers(1, 9), size=st.integers(1, 20), dim=st.integers(1, 6))
def test_forward_contract(batch: int, tokens: int, size: int, dim: int) -> None:
    quantizer = EMAQuantizer(size, dim)
    z_BND = torch.randn(batch, tokens, dim, requires_grad=True)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    output = quantizer.train()(z_BND)
    assert torch.equal(output.codes, quantizer.lookup(output.ids))
    distances = torch.cdist(z_BND.double(), quantizer.codebook_KD.double().expand(batch, -1, -1))
    torch.testing.assert_close(
        distances.gather(2, output.ids[..., None])[..., 0], distances.amin(2), rtol=1e-4, atol=1e-4
    )
    expected = (z_BND - quantizer.lookup(output.ids)).square().mean()
    torch.testing.assert_close(output.losses["commitment"], expected)
    assert output.losses.keys() == {"commitment"}
    weights = torch.randn_like(z_BND)
    (gradient,) = torch.autograd.grad((output.codes * weights).sum(), z_BND, retain_graph=True)
    assert torch.equal(gradient, weights)
    (gradient,) = torch.autograd.grad(output.losses["commitment"], z_BND)
    torch.testing.assert_close(gradient, 2 * (z_BND - quantizer.lookup(output.ids)) / z_BND.numel())
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name]), f"forward changed {name}"


def test_an_update_between_forward_and_backward_does_not_reach_the_graph() -> None:
    quantizer = trained()
    z_BND = torch.randn(1, 5, 4, requires_grad=True)
    output = quantizer(z_BND)
    expected = 2 * (z_BND - output.codes).detach() / z_BND.numel()
    quantizer.update(quantizer.assignments(z_BND, output.ids))
    output.losses["commitment"].backward()
    torch.testing.assert_close(z_BND.grad, expected)


def test_autocast_changes_neither_ids_nor_loss() -> None:
    quantizer = trained()
    z_BND = torch.randn(3, 40, 4)
    expected = quantizer(z_BND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z_BND)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.losses["commitment"], expected.losses["commitment"])
    assert torch.equal(quantizer.bfloat16()(z_BND.bfloat16()).ids, quantizer(z_BND.bfloat16().float()).ids)


def test_initialise_is_k_means_and_resets_the_statistics() -> None:
    quantizer = trained()
    z_ND = torch.randn(200, 4)
    quantizer.initialise(z_ND, seed=7, iterations=4)
    assert torch.equal(quantizer.codebook_KD, kmeans(z_ND, 16, iterations=4, seed=7))
    assert torch.equal(quantizer.sums_KD, quantizer.codebook_KD)
    assert torch.equal(quantizer.counts_K, torch.ones(16))


def test_initialise_from_fewer_vectors_than_codes() -> None:
    z_ND = torch.randn(3, 4)
    quantizer = EMAQuantizer(10, 4)
    quantizer.initialise(z_ND, seed=0)
    assert torch.equal(quantizer(z_ND[None]).codes[0], z_ND)
    assert quantizer.codebook_KD.isfinite().all()
    assert len(quantizer.codebook_KD.unique(dim=0)) == 10
    with pytest.raises(ValueError, match="no vectors"):
        quantizer.initialise(z_ND[:0], seed=0)


@pytest.mark.parametrize("rule", ["sum_count", "batch_mean"])
def test_replacing_the_dead_resets_both_statistics(rule: str) -> None:
    quantizer = trained(rule)
    dead_K = torch.zeros(16, dtype=torch.bool)
    dead_K[[2, 7, 11]] = True
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    z_ND = torch.randn(30, 4)
    assert quantizer.replace_dead_codes(dead_K, z_ND, seed=0, step=9) == 3
    revived = quantizer.codebook_KD[dead_K]
    assert (revived[:, None] == z_ND).all(-1).any(1).all()
    assert len(revived.unique(dim=0)) == 3
    torch.testing.assert_close(quantizer.counts_K[dead_K], before["counts_K"].mean().expand(3))
    torch.testing.assert_close(quantizer.sums_KD[dead_K], revived * before["counts_K"].mean())
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor[~dead_K], before[name][~dead_K])
    # Hit by its own vector only, a revived code stays near it.
    quantizer.update(quantizer.assignments(revived[None], torch.tensor([[2, 7, 11]])))
    torch.testing.assert_close(quantizer.codebook_KD[dead_K], revived, rtol=1e-3, atol=1e-3)


def test_dead_below_a_share_of_the_mean_and_replaced_by_few_vectors() -> None:
    quantizer = trained()
    counts_K = torch.arange(16)  # 7.5 on the mean
    before = quantizer.codebook_KD.clone()
    dead_K = quantizer.dead_codes(counts_K, 5.5 / 7.5)
    assert dead_K.tolist() == [True] * 6 + [False] * 10
    assert quantizer.replace_dead_codes(dead_K, torch.randn(3, 4), seed=0, step=0) == 3
    changed = (quantizer.codebook_KD != before).any(1)
    assert changed.nonzero().squeeze(1).tolist() == [0, 1, 2]
    none_K = quantizer.dead_codes(counts_K, 0.0)
    assert quantizer.replace_dead_codes(none_K, torch.randn(3, 4), seed=0, step=0) == 0


def test_replacement_draws_anew_each_step_and_the_same_for_the_same_key() -> None:
    dead_K = torch.ones(16, dtype=torch.bool)
    z_ND = torch.randn(200, 4)
    books = []
    for seed, step in ((0, 1), (0, 1), (0, 2), (1, 1)):
        quantizer = trained()
        quantizer.replace_dead_codes(dead_K, z_ND, seed=seed, step=step)
        books.append(quantizer.codebook_KD.clone())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])
    assert not torch.equal(books[0], books[3])


def test_rejects_unusable_settings() -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        EMAQuantizer(4, 2, decay=1.0)
    with pytest.raises(ValueError, match="update rule is 'median'"):
        EMAQuantizer(4, 2, update_rule="median")  # type: ignore[arg-type]
