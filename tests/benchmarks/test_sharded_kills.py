"""The short form of the campaign of kills within sharded runs."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import processes


def short_campaign(folder: Path) -> None:
    """In a process without threads, from which others can be forked: one kill while a checkpoint is being written."""
    from benchmarks.sharded_kills import POINTS, campaign

    folder.mkdir()
    good, struck = campaign(folder, seed=1, trials=1)
    assert good == 1
    assert set(struck) <= set(POINTS)


def test_a_sharded_run_killed_while_a_checkpoint_is_written_resumes_equal(tmp_path: Path):
    process = processes.Process(target=short_campaign, args=(tmp_path / "runs",))
    process.start()
    process.join()
    assert process.exitcode == 0
