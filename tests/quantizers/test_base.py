from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from semhitok.quantizers import EMAQuantizer, HierarchicalQuantizer, NormalizedQuantizer, VanillaQuantizer
from semhitok.quantizers.base import straight_through

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "ema": lambda: EMAQuantizer(5, 3),
    "vanilla": lambda: VanillaQuantizer(5, 3),
    "normalized": lambda: NormalizedQuantizer(5, 3),
    "hierarchical": lambda: HierarchicalQuantizer(5, 2, 3),
}
CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to_bfloat16": lambda module: module.to(torch.bfloat16),
    "to_device_and_dtype": lambda module: module.to("cpu", torch.float16),
    "to_like": lambda module: module.to(torch.zeros(1, dtype=torch.float64)),
    "bfloat16": lambda module: module.bfloat16(),
    "half": lambda module: module.half(),
    "double": lambda module: module.double(),
    "type": lambda module: module.type(torch.bfloat16),
    "twice": lambda module: module.half().float(),
}


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
@pytest.mark.parametrize("nested", [False, True])
def test_casts_leave_every_bit(build: Callable, cast: Callable, nested: bool) -> None:
    quantizer = build()
    before = tensors(quantizer)
    linear = nn.Linear(3, 3)
    cast(nn.Sequential(linear, nn.ModuleList([quantizer])) if nested else quantizer)
    after = tensors(quantizer)
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])


def test_parent_is_cast_around_the_codebook() -> None:
    linear = nn.Linear(3, 3)
    nn.Sequential(linear, EMAQuantizer(5, 3)).to(torch.bfloat16)
    assert linear.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_moves_between_devices(build: Callable) -> None:
    quantizer = build().to("meta", torch.bfloat16)
    assert all(tensor.is_meta and tensor.dtype == torch.float32 for tensor in quantizer.state_dict().values())
    quantizer.to_empty(device="cpu")
    assert all(tensor.device.type == "cpu" for tensor in quantizer.state_dict().values())


def test_gradients_survive_a_cast() -> None:
    quantizer = VanillaQuantizer(5, 3)
    quantizer.codebook_KD.grad = torch.randn(5, 3)
    expected = quantizer.codebook_KD.grad.clone()
    quantizer.bfloat16()
    assert torch.equal(quantizer.codebook_KD.grad, expected)


def test_fp32_under_another_default_dtype(default_dtype: torch.dtype) -> None:
    z_BND = torch.randn(2, 4, 3)
    assert z_BND.dtype == default_dtype
    for name, build in BUILDERS.items():
        quantizer = build()
        arguments = (z_BND, torch.randint(0, 5, (2, 4))) if name == "hierarchical" else (z_BND,)
        output = quantizer(*arguments)
        z_ND, groups_N = z_BND.flatten(0, 1), torch.zeros(8, dtype=torch.int64)
        if isinstance(quantizer, HierarchicalQuantizer):
            quantizer.initialise(z_ND, groups_N, seed=0)
            dead = quantizer.dead_codes(torch.tensor([[9, 0]] * 5), 0.2)
            assert quantizer.replace_dead_codes(dead, z_ND, groups_N, seed=0, step=0) == 1
        else:
            quantizer.initialise(z_ND, seed=0)
            assert quantizer.replace_dead_codes(torch.arange(5) == 2, z_ND, seed=0, step=0) == 1
        if isinstance(quantizer, EMAQuantizer):
            quantizer.update(quantizer.assignments(z_BND, output.ids))
        assert output.codes.dtype == default_dtype
        assert all(loss.dtype == torch.float32 for loss in output.losses.values())
        assert all(tensor.dtype == torch.float32 for tensor in quantizer.state_dict().values())
        assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())


def test_straight_through_value_and_gradient() -> None:
    features = torch.randn(7, 3, requires_grad=True)
    codes = (1e-3 * torch.randn(7, 3)).requires_grad_()
    out = straight_through(features, codes)
    assert torch.equal(out, codes)
    weights = torch.randn(7, 3)
    (out * weights).sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad, weights)
    assert codes.grad is None
