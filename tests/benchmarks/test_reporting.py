from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import GPU_NAMES, NAMES, joined
from benchmarks.measuring import Spread, Timing
from benchmarks.reporting import Aim, Report, Row, amount, three_digits
from PIL import Image


def report(*rows: Row, name: str = "example", **fields) -> Report:
    return Report(name=name, title="A title", method="A method.", rows=list(rows), **fields)


def test_a_row_of_times_divides_left_by_right():
    left, right = Timing((4.0, 9.0, 8.0), (8.0, 8.0, 8.0)), Timing((2.0, 3.0, 2.0), (2.0, 2.0, 2.0))
    row = Row.of_times("what", ("slow", left), ("fast", right))
    assert (row.left_amount.median, row.right_amount.median) == (8.0, 2.0)
    assert row.ratio == Spread(median=3.0, low=2.5, high=3.5)  # of 2, 3, 4
    assert row.cpu_ratio == 4.0


@pytest.mark.parametrize(
    ("aim", "ratio", "verdict"),
    [
        (Aim("at least", 20), 20.0, "at least 20: met"),
        (Aim("at least", 20), 19.9, "at least 20: MISSED"),
        (Aim("at most", 1.1), 1.1, "at most 1.1: met"),
        (Aim("at most", 1.1), 1.11, "at most 1.1: MISSED"),
    ],
)
def test_an_aim_is_judged_by_the_median(aim: Aim, ratio: float, verdict: str):
    row = Row.of_amounts("what", ("left", ratio * 2), ("right", 2.0), "s", aim=aim)
    assert report(row).markdown().splitlines()[-1].endswith(f"| {verdict} |")


def test_the_table_names_both_sides_with_their_amounts():
    row = Row.of_amounts("memory", ("ours", 2.0 * 2**20), ("theirs", 8.0 * 2**20), "bytes")
    assert report(row).markdown().splitlines()[-1] == (
        "| memory | ours: 2.00 MiB | theirs: 8.00 MiB | **0.250** | 0.250 to 0.250 |  |  |"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.012345, "0.0123"), (1.0, "1.00"), (12.345, "12.3"), (999.6, "1,000"), (12345, "12,345")],
)
def test_three_digits(number: float, text: str):
    assert three_digits(number) == text


def test_amounts_take_the_unit_that_suits():
    assert [amount(0.0123, "s"), amount(1.5, "s"), amount(3 * 2**20, "bytes"), amount(7, "images/s")] == [
        "12.3 ms",
        "1.50 s",
        "3.00 MiB",
        "7.00 images/s",
    ]


def test_results_are_written_and_joined(tmp_path: Path):
    row = Row.of_times("what", ("a", Timing((4.0,), (4.0,))), ("b", Timing((2.0,), (1.0,))), aim=Aim("at least", 1))
    report(row, name="first", pictures={"curve": Image.new("RGB", (4, 3))}).write(tmp_path)
    report(row, name="second").write(tmp_path)
    text = joined(tmp_path, ["first", "second"])
    assert text == (tmp_path / "benchmarks.md").read_text()
    assert text.count("| what | a: 4.00 s | b: 2.00 s | **2.00** |") == 2
    assert "![curve](curve.png)" in text
    assert (tmp_path / "curve.png").exists()
    found = json.loads((tmp_path / "benchmarks.json").read_text())
    assert found["second"]["rows"][0]["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["second"]["rows"][0]["aim"] == {"side": "at least", "value": 1}
    assert "threads" in found["first"]["machine"]


def test_every_benchmark_that_is_named_can_be_run():
    folder = Path(__file__).parents[2] / "benchmarks"
    for name in (*NAMES, *GPU_NAMES):
        assert 'if __name__ == "__main__":' in (folder / f"{name}.py").read_text()
