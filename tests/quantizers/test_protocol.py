"""Every quantizer that a configuration can name obeys the protocol, and so does SGHC as far as it can."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semhitok.quantizers import (
    ONE_CODE_PER_TOKEN,
    SEVERAL_CODES_PER_TOKEN,
    HierarchicalQuantizer,
    Quantizer,
    QuantizerSettings,
    TokenQuantizer,
    build_quantizer,
)
from semhitok.training.optim import parameter_groups

KINDS = [*ONE_CODE_PER_TOKEN, *SEVERAL_CODES_PER_TOKEN]
OTHERS = ["factorized", "ibq", "shared_index"]  # codebooks with losses or gradients of their own
SEVERAL = [*SEVERAL_CODES_PER_TOKEN, "factorized"]
CODES, DIM = 12, 6


def built(kind: str) -> TokenQuantizer:
    codes_per_token = 2 if kind in SEVERAL else 1
    return build_quantizer(kind, QuantizerSettings(CODES, DIM, codes_per_token=codes_per_token, semantic_dim=2))


def module_of(kind: str) -> nn.Module:
    quantizer = HierarchicalQuantizer(4, 3, DIM) if kind == "hierarchical" else built(kind)
    assert isinstance(quantizer, nn.Module)
    assert isinstance(quantizer, Quantizer)
    return quantizer


def codebooks_of(quantizer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: getattr(quantizer, name).detach().clone() for name in quantizer.codebooks}


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_stored_ids_give_back_the_codes_of_the_forward_pass(kind: str):
    quantizer, z_BND = built(kind), torch.randn(2, 7, DIM)
    quantizer.initialise(torch.randn(60, DIM), seed=0)
    output = quantizer(z_BND)
    assert output.ids.shape == ((2, 7, 2) if kind in SEVERAL else (2, 7))
    assert output.ids.dtype == torch.int64
    assert torch.equal(output.codes, quantizer.lookup(output.ids).detach())
    assert "commitment" in output.losses


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_straight_through(kind: str):
    quantizer, z_BND = built(kind), torch.randn(2, 7, DIM, requires_grad=True)
    output = quantizer(z_BND)
    (gradient,) = torch.autograd.grad(output.codes.sum(), z_BND, retain_graph=True)
    assert gradient.norm() > 0
    trained = [parameter for parameter in module_parameters(quantizer) if parameter.requires_grad]
    if trained:  # codes are moved by the codebook loss alone
        assert torch.autograd.grad(output.codes.sum(), trained, allow_unused=True, retain_graph=True) == (None,)
        (moved,) = torch.autograd.grad(output.losses["codebook"], trained)
        assert moved.norm() > 0


def module_parameters(quantizer: TokenQuantizer) -> list[nn.Parameter]:
    assert isinstance(quantizer, nn.Module)
    return list(quantizer.parameters())


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS, "hierarchical"])
def test_codebooks_are_declared_kept_in_fp32_and_not_decayed(kind: str):
    quantizer = module_of(kind)
    before = codebooks_of(quantizer)
    assert before
    assert {name for name, _ in quantizer.named_parameters()} <= set(before)
    nn.Sequential(nn.Linear(2, 2), quantizer).to(torch.bfloat16)
    assert all(torch.equal(getattr(quantizer, name), table) for name, table in before.items())
    groups = parameter_groups(nn.Sequential(nn.Linear(2, 2), quantizer), weight_decay=0.1)
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert not decayed & {id(getattr(quantizer, name)) for name in before}


@pytest.mark.parametrize("kind", [*KINDS, "factorized", "shared_index", "hierarchical"])
def test_maintenance_of_every_quantizer_is_one_call(kind: str):
    quantizer = module_of(kind)
    semantic_BN = torch.randint(0, 4, (3, 20))
    z_BND = torch.randn(3, 20, DIM)
    z_ND, groups_N = z_BND.flatten(0, 1), None
    if kind == "hierarchical":
        groups_N = semantic_BN.flatten()
    quantizer.initialise(z_ND, groups_N, seed=1)
    again = module_of(kind)
    again.initialise(z_ND, groups_N, seed=1)
    assert all(torch.equal(getattr(again, name), table) for name, table in codebooks_of(quantizer).items())
    if kind == "hierarchical":
        ids = quantizer.flatten_ids(semantic_BN, quantizer(z_BND, semantic_BN).ids)
        assert torch.equal(quantizer.groups(ids), semantic_BN)
    else:
        ids = quantizer(z_BND).ids
        assert quantizer.groups(ids) is None
    size = torch.Size(quantizer.counts_shape).numel()
    counts = torch.bincount(quantizer.slots(ids).flatten(), minlength=size).unflatten(0, quantizer.counts_shape)
    assert counts.numel() == size
    assert counts.sum() == ids.numel()
    assert not quantizer.dead_codes(counts, 0.0).any()
    counts[...] = 50
    counts[..., 1] = 0
    dead, before = quantizer.dead_codes(counts, 0.5), codebooks_of(quantizer)
    assert dead.any()
    replaced = quantizer.replace_dead_codes(dead, z_ND, groups_N, seed=1, step=2)
    assert replaced == int(dead.sum())
    (name,) = quantizer.codebooks
    assert torch.equal((getattr(quantizer, name) != before[name]).any(dim=-1), dead)
    quantizer.absorb([(z_BND, ids)])
    quantizer.reset_parameters()
    assert not torch.equal(getattr(quantizer, name), before[name])


def test_an_unknown_name_and_a_wrong_number_of_codes_are_refused():
    with pytest.raises(ValueError, match=r"must be one of ema, vanilla, .*residual, got median"):
        build_quantizer("median", QuantizerSettings(4, 2))
    with pytest.raises(ValueError, match="quantizer ema has one code per token, got 2"):
        build_quantizer("ema", QuantizerSettings(4, 2, codes_per_token=2))
