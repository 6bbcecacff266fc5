"""True fp32 whatever the caller has set, against the settings that layers see while they compute."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model
from tests.tiny_unitok import tiny_unitok
from torch import nn

from semhitok.nn.exact import exact_fp32

CPU = torch.device("cpu")
BACKENDS: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
)


def settings() -> list[str]:
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture
def reduced() -> Iterator[list[str]]:
    """TF32 for GPUs and bf16 on CPUs, for products and convolutions."""
    before = settings()
    wanted = ["tf32", "tf32", "bf16", "bf16"]
    for backend, precision in zip(BACKENDS, wanted, strict=True):
        backend.fp32_precision = precision
    yield wanted
    for backend, precision in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = precision


def test_the_settings_return_only_when_the_last_of_four_threads_has_left(reduced: list[str]):
    together = Barrier(4)

    def compute(number: int) -> list[list[str]]:
        seen = []
        together.wait()
        for _ in range(200):
            with exact_fp32(CPU):
                seen.append(settings())
        return seen

    with ThreadPoolExecutor(4) as pool:
        seen = [found for each in pool.map(compute, range(4)) for found in each]
    assert all(found == ["ieee"] * 4 for found in seen)
    assert settings() == reduced


def test_nested_and_after_an_error(reduced: list[str]):
    with pytest.raises(KeyError), exact_fp32(CPU), exact_fp32(CPU):
        raise KeyError
    assert settings() == reduced


@pytest.mark.parametrize("make", [tiny_model, tiny_unitok])
def test_every_layer_of_encode_computes_in_true_fp32(make, reduced: list[str]):
    """A convolution in TF32 changes ids: those of a GPU would not be the CPU's."""
    model = make().eval()
    seen: list[tuple[list[str], bool]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda *_: seen.append((settings(), torch.is_autocast_enabled("cpu"))))
    size = model.config.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.encode(images).ids
    assert seen
    assert all(entry == (["ieee"] * 4, False) for entry in seen)
    assert settings() == reduced
    with exact_fp32(CPU):
        assert torch.equal(found, model.encode(images).ids)
