"""Sampling against transformers' warpers and against frequencies."""

from __future__ import annotations

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from semhitok.mllm import Sampling


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6])
def test_probabilities_are_those_of_transformers(temperature: float, top_k: int, top_p: float):
    logits = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)) * 3
    wanted = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        wanted = TopKLogitsWarper(top_k)(None, wanted)
    if top_p < 1:
        wanted = TopPLogitsWarper(top_p)(None, wanted)
    found = Sampling(temperature=temperature, top_k=top_k, top_p=top_p).probabilities(logits)
    torch.testing.assert_close(found, wanted.softmax(-1))


def test_ids_are_drawn_with_their_probabilities():
    sampling, logits = Sampling(temperature=1.5, top_k=4, seed=3), torch.tensor([[0.0, 2.0, -1.0, 1.0, 0.5, -3.0]])
    draws = sampling.draws(1, 40_000)[0]
    chosen = sampling.choose(logits.expand(len(draws), -1), draws)
    frequencies = chosen.bincount(minlength=6) / len(draws)
    torch.testing.assert_close(frequencies, sampling.probabilities(logits)[0], atol=0.01, rtol=0)
    assert frequencies[2] == frequencies[5] == 0


def test_extreme_draws_hit_no_impossible_id():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert Sampling().choose(logits, torch.stack([torch.tensor(0.0), last])).tolist() == [1, 2]


def test_temperature_0_is_the_most_likely_id():
    logits = torch.randn(5, 9)
    assert torch.equal(Sampling(temperature=0).choose(logits, torch.rand(5)), logits.argmax(-1))


def test_each_row_has_its_own_seed():
    draws = Sampling(seed=5).draws(3, 4)
    assert torch.equal(Sampling(seed=6).draws(2, 4), draws[1:])
    assert torch.equal(Sampling(seed=5).draws(3, 2), draws[:, :2])


@pytest.mark.parametrize("values", [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_bad_values(values: dict):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name} must .*, got {value}"):
        Sampling(**values)
