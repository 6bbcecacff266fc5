"""Sampling against transformers' warpers and against frequencies."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare, kstest
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
    chosen = torch.cat([sampling.choose(logits.expand(50, -1), position) for position in range(400)])
    frequencies = chosen.bincount(minlength=6)
    wanted = sampling.probabilities(logits)[0]
    assert frequencies[2] == frequencies[5] == 0
    kept = wanted > 0
    assert chisquare(frequencies[kept].numpy(), (wanted[kept] * len(chosen)).numpy()).pvalue > 0.01


def test_noise_is_gumbel_noise():
    assert kstest(Sampling(seed=1).noise(1, 0, 20_000)[0].numpy(), "gumbel_r").pvalue > 0.01


def test_rounding_hardly_ever_changes_a_choice():
    """Inverting the cumulative distribution changes choices in proportion to the number of ids, 2 of 40,000 here."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 8192, generator=generator)
    rounded = logits * (1 + 2e-6 * torch.rand(logits.shape, generator=generator))
    found, wanted = (
        torch.stack([Sampling(seed=2).choose(each, position) for position in range(100)]) for each in (rounded, logits)
    )
    assert (found != wanted).sum() == 0


def test_an_impossible_id_is_never_chosen():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(20, -1)
    chosen = torch.stack([Sampling().choose(logits, position) for position in range(20)])
    assert set(chosen.flatten().tolist()) == {1, 2}


def test_temperature_0_is_the_most_likely_id():
    logits = torch.randn(5, 9)
    assert torch.equal(Sampling(temperature=0).choose(logits, 0), logits.argmax(-1))


def test_noise_depends_on_seed_and_position_only():
    noise = Sampling(seed=5).noise(3, 7, 4)
    assert torch.equal(Sampling(seed=6).noise(2, 7, 4), noise[1:])
    assert torch.equal(Sampling(seed=5).noise(3, 7, 2), noise[:, :2])
    others = [Sampling(seed=5).noise(1, 8, 4)[0], Sampling(seed=4).noise(1, 7, 4)[0], noise[1]]
    assert all(not torch.equal(other, noise[0]) for other in others)


@pytest.mark.parametrize("values", [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_bad_values(values: dict):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name} must .*, got {value}"):
        Sampling(**values)
