"""Tables: what they draw, what they run, what they refuse; with experiments that train nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import save_images

from semhitok.data.sources import ImageFolder
from semhitok.experiments import ABLATIONS, Ablation, ExperimentContext, draw, results_of, run
from semhitok.experiments.results import Result, load_result, result_file, save_result
from semhitok.experiments.table import Metric, Row


@dataclass(frozen=True)
class Fake:
    """Its figure is a known function of its width and the seed; it notes that it ran."""

    name: str
    width: int
    log: list[tuple[str, int]] = field(default_factory=list, compare=False)

    def settings(self) -> dict[str, Any]:
        return {"model": {"width": self.width}, "steps": 3}

    def run(self, place: ExperimentContext, seed: int) -> dict[str, float]:
        self.log.append((self.name, seed))
        return {"psnr": self.width + 0.5 * seed, "usage": 0.25}


@pytest.fixture
def log() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def ablation(log) -> Ablation:
    narrow, wide = Fake("narrow", 10, log), Fake("wide", 20, log)
    return Ablation(
        name="widths",
        title="Width",
        source="a paper, Table 1",
        rows=(
            Row({"width": "10"}, narrow, {"rFID": "1.5"}),
            Row({"width": "20"}, wide, {"rFID": "1.2"}),
            Row({"width": "10 again"}, narrow),
        ),
        metrics=(Metric("psnr", "PSNR, dB"), Metric("usage", "usage, %", 1, 100)),
        note="All equal but the width.",
    )


@pytest.fixture
def place(tmp_path: Path) -> ExperimentContext:
    source = ImageFolder(save_images(tmp_path / "images", 8))
    return ExperimentContext(
        source,
        source,
        tmp_path,
        tmp_path,
        "images",
        tmp_path / "out",
        torch.device("cpu"),
        8,
        lambda line: None,
        None,
        (),
    )


def test_every_seed_is_complete_before_the_next_and_nothing_runs_twice(ablation, place, log, tmp_path: Path):
    run(ablation, place, tmp_path / "results", [0])
    assert log == [("narrow", 0), ("wide", 0)]
    result_file(tmp_path / "results", "wide", 0).unlink()
    run(ablation, place, tmp_path / "results", [0, 1])
    assert log[2:] == [("wide", 0), ("narrow", 1), ("wide", 1)]


def test_the_table_shows_means_spread_and_published_values(ablation, place, tmp_path: Path):
    run(ablation, place, tmp_path, [0, 1])
    result_file(tmp_path, "wide", 1).unlink()
    lines = draw(ablation, results_of(ablation, tmp_path, [0, 1])).splitlines()
    assert lines[2] == "| width | PSNR, dB | usage, % | paper: rFID | seeds |"
    assert lines[4] == "| 10 | 10.25 ± 0.25 | 25.0 | 1.5 | 2 |"
    assert lines[5] == "| 20 | 20.00 | 25.0 | 1.2 | 1 |"
    assert lines[6] == "| 10 again | 10.25 ± 0.25 | 25.0 |  | 2 |"
    assert lines[8] == "Published values: a paper, Table 1. All equal but the width."
    assert "| 20 | – | – | 1.2 | 0 |" in draw(ablation, {})


def test_a_result_says_how_it_was_made(ablation, place, tmp_path: Path):
    run(ablation, place, tmp_path, [1])
    result = load_result(result_file(tmp_path, "narrow", 1))
    assert (result.seed, result.settings, result.metrics["psnr"]) == (1, {"model": {"width": 10}, "steps": 3}, 10.5)
    assert result.environment["training_data"] == place.train.fingerprint[:16]
    assert {"date", "commit", "software", "device"} <= set(result.environment)


def test_a_result_of_other_settings_is_refused_but_new_settings_do_not_matter(ablation, place, tmp_path: Path):
    run(ablation, place, tmp_path, [0])
    path = result_file(tmp_path, "wide", 0)
    result = load_result(path)
    save_result(tmp_path, replace(result, settings={"model": {"width": 20, "dropped": 1}}))
    assert len(results_of(ablation, tmp_path, [0])["wide"]) == 1
    save_result(tmp_path, replace(result, settings={"model": {"width": 21}, "steps": 3}))
    with pytest.raises(ValueError, match=r"model\.width 21 -> 20") as caught:
        run(ablation, place, tmp_path, [0])
    assert "\n" not in str(caught.value)
    # Without running anything the table is shown, and says so.
    table = draw(ablation, results_of(ablation, tmp_path, [0]))
    present = draw(ablation, results_of(ablation, tmp_path, [0]) | {"wide": [result]})
    assert table == f"{present}\nMade with settings that have changed since: wide-seed0 (model.width 21 -> 20).\n"


@pytest.mark.parametrize("content", ["{", "[]", '{"experiment": "wide"}'])
def test_a_damaged_result_is_named(ablation, tmp_path: Path, content: str):
    path = result_file(tmp_path, "wide", 0)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"wide-seed0\.json is not the result of"):
        results_of(ablation, tmp_path, [0])


def test_a_failed_write_leaves_the_last_result(ablation, place, tmp_path: Path, monkeypatch):
    run(ablation, place, tmp_path, [0])
    before = result_file(tmp_path, "wide", 0).read_text()
    monkeypatch.setattr(Path, "replace", lambda *names: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        save_result(tmp_path, Result("wide", 0, {}, {}, 0.0, {}))
    assert result_file(tmp_path, "wide", 0).read_text() == before


@pytest.mark.parametrize("ablation", ABLATIONS.values(), ids=ABLATIONS)
def test_shipped_tables_compare_different_things_under_the_same_columns(ablation: Ablation):
    assert len({tuple(row.label) for row in ablation.rows}) == 1
    labels = [tuple(row.label.values()) for row in ablation.rows]
    settings = [str(row.experiment.settings()) for row in ablation.rows]
    assert len(set(labels)) == len(set(settings)) == len(labels) >= 2


def test_a_name_stands_for_one_experiment_in_all_tables():
    named: dict[str, Any] = {}
    for ablation in ABLATIONS.values():
        for row in ablation.rows:
            assert named.setdefault(row.experiment.name, row.experiment.settings()) == row.experiment.settings()
