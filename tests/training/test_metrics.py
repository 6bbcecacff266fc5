"""The log: means, JSON lines, what is dropped on resume."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from semhitok.training.metrics import MetricsWriter, RunningMean, read_metrics


def test_means_are_over_the_entries_that_have_the_name():
    means = RunningMean()
    means.add({"loss": 1.0, "psnr": 10.0})
    means.add({"loss": 3.0})
    assert means.take() == {"loss": 2.0, "psnr": 10.0}
    means.add({"loss": 7.0})
    assert means.take() == {"loss": 7.0}


def test_entries_after_the_resumed_step_are_dropped(tmp_path: Path):
    writer = MetricsWriter(tmp_path)
    for step in (10, 20, 30):
        writer.write(step, {"loss": 0.1 * step})
    writer.close()
    writer = MetricsWriter(tmp_path, step=20)
    writer.write(25, {"loss": math.inf, "evaluation/score": 1.0})
    assert writer.has_entry(25, "evaluation/")
    assert not writer.has_entry(20, "evaluation/")
    writer.close()
    entries = read_metrics(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [10, 20, 25]
    assert entries[1]["loss"] == 2.0
    assert entries[2]["loss"] is None


def test_tensorboard_files_are_written_where_it_is_installed_and_missed_nowhere_else(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.0}
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch):
    class Board:
        def __init__(self, directory: str, purge_step: int):
            self.directory, self.purge_step, self.scalars = directory, purge_step, []

        def add_scalar(self, *entry):
            self.scalars.append(entry)

        def close(self):
            self.scalars.append("closed")

    boards = []
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = lambda *arguments, **options: boards.append(Board(*arguments, **options)) or boards[-1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    writer = MetricsWriter(tmp_path, step=4)
    writer.write(5, {"loss": 1.0, "psnr": 20.0})
    writer.close()
    assert boards[0].directory == str(tmp_path / "tensorboard")
    assert boards[0].purge_step == 5
    assert boards[0].scalars == [("loss", 1.0, 5), ("psnr", 20.0, 5), "closed"]
