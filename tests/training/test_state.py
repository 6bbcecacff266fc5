"""Seeds and generators are functions of the state."""

from __future__ import annotations

import torch

from semhitok.training.state import TrainState, derive_seed


def test_seeds_depend_on_every_part_and_stay_the_same_for_ever():
    seeds = {derive_seed(*parts) for parts in [(0, 1, "a"), (0, 2, "a"), (1, 1, "a"), (0, 1, "b"), (0, 11), (0, 1, 1)]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, 0, "global", 0) == derive_seed(0, 0, "global", 0)
    # blake2b("0/1/a", 8 bytes), little-endian, halved
    assert derive_seed(0, 1, "a") == 4994886724436472275


def test_generators_repeat_for_the_same_step_and_differ_between_steps_and_purposes():
    def draw(step: int, purpose: str) -> float:
        return float(torch.rand((), generator=TrainState(10, seed=3, step=step).generator(purpose)))

    assert draw(1, "a") == draw(1, "a")
    assert len({draw(1, "a"), draw(2, "a"), draw(1, "b")}) == 3


def test_global_generators_are_seeded_by_step_and_rank():
    def draw(step: int, rank: int) -> float:
        TrainState(10, step=step).seed_step(rank)
        return float(torch.rand(()))

    assert draw(4, 0) == draw(4, 0)
    assert len({draw(4, 0), draw(4, 1), draw(5, 0)}) == 3


def test_a_state_survives_its_dictionary():
    state = TrainState(10, seed=1, step=4, samples=16, seconds=1.5, planned_for=60.0)
    assert TrainState.from_state_dict(state.state_dict()) == state
    assert not state.finished
    assert TrainState(10, step=10).finished
