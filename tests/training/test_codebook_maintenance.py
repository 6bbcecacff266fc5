"""Codebook maintenance: the reservoir of recent vectors, the state of tasks, and quantizers that a table knows."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import pixel_task, pixels, semantic_config, take_steps, tiny_feed, tiny_model
from tests.tiny_unitok_training import captioned_feed, unitok_model, unitok_task

from semhitok.training.codebook_maintenance import CodebookMaintainer, Reservoir
from semhitok.training.state import TrainState
from semhitok.training.tasks.semantic import SemanticTask


def test_keeps_the_latest_whole_steps_and_columns_together():
    pool = Reservoir(10)
    for step in range(5):
        pool.add(torch.full((4, 2), float(step)), torch.full((4,), step))
    assert len(pool) == 8
    vectors, ids = pool.local()
    assert vectors.tolist() == [[3.0, 3.0]] * 4 + [[4.0, 4.0]] * 4
    assert ids.tolist() == [3] * 4 + [4] * 4
    pool.clear()
    assert len(pool) == 0


def test_one_step_larger_than_the_pool_is_kept():
    pool = Reservoir(3)
    pool.add(torch.ones(5, 2))
    assert len(pool) == 5


def test_rows_are_copies_without_gradient():
    pool, vectors = Reservoir(10), torch.ones(4, 2, requires_grad=True)
    pool.add(vectors)
    with torch.no_grad():
        vectors.zero_()
    (kept,) = pool.local()
    assert not kept.requires_grad
    assert torch.equal(kept, torch.ones(4, 2))


def test_state_goes_to_another_pool():
    pool, other = Reservoir(10), Reservoir(10)
    pool.add(torch.rand(3, 2), torch.arange(3))
    other.load_state_dict(pool.state_dict())
    assert all(torch.equal(*pair) for pair in zip(pool.local(), other.local(), strict=True))


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="at least 1 vector, got 0"):
        Reservoir(0)


SEMANTIC = {"branch", "optimizer", "usage", "reservoir"}
PIXEL = {"fresh_codebook", "trained", "average", "optimizer", "usage", "hits", "reservoir"}
UNITOK = {"fresh_codebook", "model", "average", "optimizer", "adversary", "usage", "reservoir"}


def test_the_state_of_a_task_has_the_entries_that_checkpoints_have():
    assert set(SemanticTask(tiny_model(), semantic_config()).state_dict()) == SEMANTIC
    assert set(pixel_task(adversarial_weight=0.0).state_dict()) == PIXEL
    assert set(unitok_task().state_dict()) == UNITOK


@pytest.mark.parametrize("fresh", [True, False])
def test_a_checkpoint_in_the_midst_of_an_interval_is_taken_up(fresh: bool):
    """Entries written out as checkpoints hold them."""
    task = pixel_task(adversarial_weight=0.0)
    z_ND, groups_N = torch.randn(128, 4), torch.arange(128) % 16
    counts = torch.arange(64)
    task.load_state_dict(
        task.state_dict()
        | {
            "fresh_codebook": fresh,
            "usage": {"counts": counts},
            "hits": {"counts": counts + 1},
            "reservoir": {"steps": [[z_ND[:64], groups_N[:64]], [z_ND[64:], groups_N[64:]]]},
        }
    )
    maintainer = task.maintainer
    assert maintainer.fresh_codebook == fresh
    assert torch.equal(maintainer.usage.counts, counts)
    assert torch.equal(maintainer.hits.counts, counts + 1)
    assert all(map(torch.equal, maintainer.reservoir.local(), (z_ND, groups_N)))
    metrics = take_steps(task, tiny_feed(), 1, state=TrainState(total_steps=24, step=8))[0]  # an interval ends here
    assert 0 < metrics["usage"] <= 1
    assert metrics["revived"] > 0
    assert not task.maintainer.fresh_codebook
    assert task.maintainer.hits.counts.sum() == 0


@pytest.mark.parametrize("kind", ["ema", "vanilla", "normalized"])
def test_a_quantizer_of_one_code_per_token_serves_unitok(kind: str):
    model = unitok_model(quantizer=kind, num_codebooks=1)
    task = unitok_task(model, fresh_codebook=True)
    metrics = take_steps(task, captioned_feed(), 9)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert any("revived" in step for step in metrics)
    ids = model.eval().encode(pixels(2)).ids
    assert ids.shape == (2, 4, 1)
    assert torch.equal(model.embed(ids).pixel, model.quantizer.lookup(ids[..., 0]))
    assert model.decode(ids).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match=f"quantizer {kind} has one code per token: num_codebooks must be 1, got 2"):
        unitok_model(quantizer=kind)


@pytest.mark.parametrize("size", [1, 128, 300, 512, 10**6])
def test_only_vectors_that_a_replacement_can_use_are_gathered(size: int, monkeypatch: pytest.MonkeyPatch):
    """128 vectors a step, intervals of 4 steps: what replaces dead codes is what gathering every step gives."""
    config = {"initialise_step": 2, "revive_every": 4, "revive_below": 0.5, "reservoir_size": size}

    def train() -> tuple[list[dict[str, float]], int]:
        gathered, add = [], Reservoir.add
        monkeypatch.setattr(Reservoir, "add", lambda self, *columns: (gathered.append(1), add(self, *columns))[1])
        task = SemanticTask(tiny_model(), semantic_config(**config))
        metrics = take_steps(task, tiny_feed(), 15)
        monkeypatch.setattr(Reservoir, "add", add)
        return [{name: float(value) for name, value in step.items()} for step in metrics], len(gathered)

    few, count = train()
    monkeypatch.setattr(CodebookMaintainer, "_is_kept", lambda *given: True)
    every, everything = train()
    assert few == every
    assert any(step.get("revived", 0) > 0 for step in few)
    kept = min(4, max(1, size // 128))
    assert everything == 3 + 10  # steps 0 to 2 for k-means; steps 2 to 11, since codes are replaced until step 12
    assert count == 3 + len([step for step in range(2, 12) if step % 4 >= 4 - kept])
