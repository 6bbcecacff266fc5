"""Short forms of the campaigns of random kills and crash points."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import processes


def short_campaigns(folder: Path) -> None:
    """In a process without threads, from which others can be forked: a crash and two kills of one system."""
    from benchmarks.interruptions import Place

    from benchmarks import crash_points, kill_series

    place = Place(folder / "runs")
    outcomes, kinds = crash_points.campaign(place, 1, 1, 0, systems=["unitok"])
    kill_series.KILLS_PER_RUN = 2
    killed, where = kill_series.campaign(place, 1, 1, 0, systems=["unitok"])
    assert (len(outcomes), sum(kinds.values())) == (1, 1)
    assert sum(where.values()) == sum(outcome.interruptions for outcome in killed) >= 1
    assert all(outcome.good for outcome in outcomes + killed), outcomes + killed


def test_interrupted_runs_end_equal(tmp_path: Path):
    process = processes.Process(target=short_campaigns, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
