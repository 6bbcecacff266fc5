"""The benchmarks of the unified language model at their small sizes, and what they compare."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.language_models import QUICK, rate_row, unified_model
from benchmarks.large_head import case, difference, plain_loss, sides, tokens_that_fit
from benchmarks.measuring import Timing

from benchmarks import guidance, language_tokens, large_head


@pytest.mark.parametrize(("benchmark", "rows"), [(guidance, 1), (large_head, 2), (language_tokens, 4)])
def test_the_small_size_runs_and_judges_nothing(benchmark, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large_head, "memory_is_measurable", lambda: False)  # that part starts processes
    report = benchmark.measure(True)
    assert len(report.rows) == rows
    assert report.name == benchmark.__name__.rpartition(".")[2]
    assert all(row.ratio.median > 0 and row.aim is None for row in report.rows)


def test_all_sides_make_as_many_tokens_with_as_many_rows_of_the_head():
    model = unified_model(QUICK, 32)
    sides = language_tokens.sides_of(QUICK, model, (2,))[2]
    made = {name: side() for name, side in sides.items()}
    assert {tuple(ids.shape) for ids in made.values()} == {(2, 16)}
    assert len(made["image"].unique()) > 4, "not one id over and over"
    assert torch.equal(made["image"], made["fast image"])
    assert torch.equal(made["bare loop"], made["bare visual"])


def test_drawn_ids_that_differ_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guidance, "generate_fast", lambda model, prompts: guidance.generate_stock(model, prompts) + 1)
    with pytest.raises(RuntimeError, match="the same greedy ids, 16 of 16 differ"):
        guidance.measure(True)


def test_rates_are_tokens_per_second_and_their_ratio():
    left, right = Timing((2.0, 4.0, 2.0), (2.0, 2.0, 2.0)), Timing((4.0, 8.0, 6.0), (3.0, 3.0, 3.0))
    row = rate_row("what", ("ours", left), ("theirs", right), 8)
    assert (row.left_amount.median, row.right_amount.median) == (4.0, pytest.approx(8 / 6))
    assert (row.ratio.median, row.cpu_ratio) == (2.0, 1.5)  # of 2, 2, 3: faster is larger


def test_all_losses_and_gradients_agree_and_a_wrong_one_is_found(tmp_path: Path):
    files = {name: tmp_path / name for name in sides()}
    for name, loss in sides().items():
        case(loss, 40, 300, 8, files[name])()
    for name in files:
        assert difference(files[name], files["plain"]) < 1e-5
    wrong = tmp_path / "wrong"
    case(lambda *inputs: plain_loss(*inputs) * 1.001, 40, 300, 8, wrong)()
    assert difference(wrong, files["plain"]) == pytest.approx(1e-3, rel=0.01)


def test_tokens_are_halved_until_the_plain_loss_fits(monkeypatch: pytest.MonkeyPatch):
    sizes = large_head.Sizes(tokens=4096, timed_tokens=1, rows=1000, dim=1, rounds=1)
    for free, wanted in ((4096 * 1000 * 14, 4096), (4096 * 1000 * 14 - 1, 2048), (1024 * 1000 * 14, 1024)):
        monkeypatch.setattr(large_head, "_free_memory", lambda free=free: free)
        assert tokens_that_fit(sizes) == wanted
    monkeypatch.setattr(large_head, "_free_memory", lambda: 1024 * 1000 * 14 - 1)
    with pytest.raises(MemoryError, match="1024 tokens does not fit"):
        tokens_that_fit(sizes)
