"""The schedule against hand-computed values; which parameters decay; optimizer steps against plain torch."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from semhitok.quantizers import Quantizer
from semhitok.quantizers.base import Float32Module
from semhitok.training.optim import (
    MuonWithAdamW,
    OptimizerConfig,
    build_adamw,
    initialise_states,
    learning_rate,
    parameter_groups,
    take_step,
)


def test_the_schedule_warms_up_linearly_and_falls_along_a_cosine():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=10, final_ratio=0.1)
    expected = {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 55: 0.2 + 1.8 / 2, 32: None, 100: 0.2, 150: 0.2}
    expected[32] = 2.0 * (0.1 + 0.9 * 0.5 * (1 + 0.71934))  # cos(pi * 22/90) = 0.71934
    for step, rate in expected.items():
        assert learning_rate(step, 100, config) == pytest.approx(rate, rel=1e-4)


def test_a_warmup_longer_than_a_tenth_of_the_run_is_cut():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=1000)
    assert [learning_rate(step, 30, config) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert learning_rate(0, 5, config) == 1.0


def test_a_final_ratio_of_one_keeps_the_rate():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=0, final_ratio=1.0)
    assert {learning_rate(step, 50, config) for step in range(50)} == {1.0}


class Parts(nn.Module):
    no_weight_decay = ("codebook_KmD", "position_embedding")

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.patch_embedding = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)
        self.table = nn.Embedding(5, 4)
        self.codebook_KmD = nn.Parameter(torch.randn(2, 3, 4))
        self.position_embedding = nn.Parameter(torch.randn(1, 9, 4))
        self.mask_token = nn.Parameter(torch.randn(1, 1, 4))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_matrices_and_convolutions_decay():
    model = Parts()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = parameter_groups(model, weight_decay=0.1)
    assert {names[parameter] for parameter in decayed["params"]} == {"linear.weight", "patch_embedding.weight"}
    assert {names[parameter] for parameter in plain["params"]} == {
        "linear.bias",
        "patch_embedding.bias",
        "norm.weight",
        "norm.bias",
        "table.weight",
        "codebook_KmD",
        "position_embedding",
        "mask_token",
    }
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_a_parameter_shared_by_two_modules_is_updated_once():
    model = Parts()
    groups = parameter_groups(model, model.linear, weight_decay=0.1)
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == 10


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        build_adamw(nn.Linear(2, 2).requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize("clip_norm", [0.01, None])
def test_a_step_equals_plain_torch(clip_norm: float | None):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=2, clip_norm=clip_norm, weight_decay=0.3)
    torch.manual_seed(0)
    ours, reference = nn.Linear(3, 3), nn.Linear(3, 3)
    reference.load_state_dict(ours.state_dict())
    optimizer = build_adamw(ours, config)
    plain = torch.optim.AdamW(
        [{"params": [reference.weight], "weight_decay": 0.3}, {"params": [reference.bias], "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    for step in range(5):
        for model in (ours, reference):
            model(torch.full((2, 3), 1.0 + step)).square().sum().backward()
        gradients = [parameter.grad for parameter in reference.parameters() if parameter.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        if clip_norm is not None:
            for gradient in gradients:
                gradient.mul_(clip_norm / norm)
        for group in plain.param_groups:
            group["lr"] = learning_rate(step, 40, config)
        plain.step()
        plain.zero_grad()
        figures = take_step(optimizer, config, step, 40)
        assert float(figures["gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)
        assert figures["learning_rate"] == learning_rate(step, 40, config)
        assert all(parameter.grad is None for parameter in ours.parameters())
    torch.testing.assert_close(ours.weight, reference.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.bias, reference.bias, rtol=1e-4, atol=1e-6)


class Lattice(Float32Module, Quantizer):
    """A quantizer whose table has a name of its own."""

    codebooks: ClassVar[tuple[str, ...]] = ("lattice_KD",)

    def __init__(self) -> None:
        super().__init__()
        self.lattice_KD = nn.Parameter(torch.randn(4, 3))
        self.rotation = nn.Parameter(torch.randn(3, 3))


def test_a_codebook_does_not_decay_whatever_its_name():
    model = nn.Sequential(Lattice())
    decayed, plain = parameter_groups(model, weight_decay=0.1)
    assert decayed["params"] == [model[0].rotation]
    assert plain["params"] == [model[0].lattice_KD]


def layered() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5))


def backward(model: nn.Module, step: int) -> None:
    ids = torch.arange(8).add(step) % 7
    model(ids).sin().square().sum().backward()


def test_muon_takes_some_matrices_and_adamw_the_rest():
    config = OptimizerConfig(learning_rate=0.01, warmup_steps=0, final_ratio=1.0, weight_decay=0.1, clip_norm=None)
    ours, theirs = layered(), layered()
    optimizer = MuonWithAdamW(ours, [ours[1].weight], config)
    others = [each for name, each in theirs.named_parameters() if name not in ("1.weight", "3.weight")]
    muon = torch.optim.Muon([theirs[1].weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": [theirs[3].weight], "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=0.01,
        betas=(config.beta1, config.beta2),
    )
    for step in range(4):
        backward(ours, step)
        backward(theirs, step)
        take_step(optimizer, config, step, 4)
        for each in (muon, adamw):
            each.step()
            each.zero_grad()
    for (name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, msg=lambda text, name=name: f"{name}: {text}")


def test_muon_goes_on_from_its_states():
    config = OptimizerConfig(learning_rate=0.01, warmup_steps=0)
    whole, halves = layered(), layered()
    optimizer = MuonWithAdamW(whole, [whole[1].weight], config)
    first = MuonWithAdamW(halves, [halves[1].weight], config)
    initialise_states(first)  # changes nothing
    for step in range(2):
        backward(whole, step)
        take_step(optimizer, config, step, 4)
        backward(halves, step)
        take_step(first, config, step, 4)
    second = MuonWithAdamW(halves, [halves[1].weight], config)
    second.load_state_dict(first.state_dict())
    for step in range(2, 4):
        backward(whole, step)
        take_step(optimizer, config, step, 4)
        backward(halves, step)
        take_step(second, config, step, 4)
    for ours, theirs in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_muon_needs_a_matrix():
    with pytest.raises(ValueError, match="there is no matrix for it"):
        MuonWithAdamW(layered(), [], OptimizerConfig())
