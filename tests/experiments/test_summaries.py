"""A folder of results as one line for each experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from semhitok.experiments.results import Result, save_result
from semhitok.experiments.summaries import read_results, summarise


def result(name: str, seed: int, **metrics: float) -> Result:
    return Result(name, seed, {}, metrics, 1.0, {})


def test_means_and_spreads_over_the_seeds(tmp_path: Path):
    for entry in (result("b", 1, psnr=20.0, bits=64), result("a", 0, psnr=10.0), result("b", 0, psnr=21.0)):
        save_result(tmp_path, entry)
    (tmp_path / "other.json").write_text('{"psnr": 3}')
    results, others = read_results(tmp_path)
    assert others == ["other.json"]
    a, b = summarise(results)
    assert (a.experiment, a.seeds, a.means, a.spreads) == ("a", (0,), {"psnr": 10.0}, {"psnr": 0.0})
    assert (b.experiment, b.seeds) == ("b", (0, 1))
    assert b.means == {"psnr": 20.5, "bits": 64}
    assert b.spreads == {"psnr": 0.5, "bits": 0.0}


def test_folders_without_results_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no results"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        read_results(tmp_path / "nosuch")
