"""The average of weights against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semhitok.training.weight_average import WeightAverage


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.codebook: torch.Tensor
        self.register_buffer("codebook", torch.zeros(2))


def averaged(average: WeightAverage) -> Model:
    assert isinstance(average.module, Model)
    return average.module


def test_weights_are_averaged_with_a_rising_decay_and_buffers_are_copied():
    model, generator = Model(), torch.Generator().manual_seed(0)
    average = WeightAverage(model, decay=0.4)
    expected = None
    for update in range(1, 9):
        model.weight.data = torch.randn(2, generator=generator)
        model.codebook = torch.randn(2, generator=generator)
        average.update(model)
        decay = min(0.4, (1 + update) / (10 + update))
        expected = model.weight.data if expected is None else decay * expected + (1 - decay) * model.weight.data
        torch.testing.assert_close(averaged(average).weight.data, expected)
        assert torch.equal(averaged(average).codebook, model.codebook)


def test_it_goes_on_from_its_state():
    model = Model()
    first, second = WeightAverage(model, decay=0.9), WeightAverage(model, decay=0.9)
    for value in (1.0, 2.0, 3.0):
        model.weight.data.fill_(value)
        first.update(model)
    second.load_state_dict(first.state_dict())
    model.weight.data.fill_(5.0)
    first.update(model)
    second.update(model)
    assert torch.equal(averaged(first).weight, averaged(second).weight)


def test_the_copy_needs_no_gradient_and_is_apart_from_the_model():
    model = Model()
    average = WeightAverage(model)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert model.weight.requires_grad
    model.weight.data.fill_(3.0)
    assert torch.equal(averaged(average).weight, torch.zeros(2))


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1.0"):
        WeightAverage(Model(), decay=1.0)
