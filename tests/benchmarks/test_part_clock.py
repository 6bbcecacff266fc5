from __future__ import annotations

import pytest
from benchmarks.part_clock import PartClock, Wrapped, watching
from benchmarks.training_parts import share_rows


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Step:
    """3 seconds by itself, 5 in a part, 2 of another inside of it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def inner(self) -> str:
        self.clock.now += 2
        return "inner"

    def outer(self) -> str:
        self.clock.now += 4
        found = self.inner()
        self.clock.now += 1
        return found

    def step(self) -> str:
        self.clock.now += 1
        found = self.outer()
        self.clock.now += 2
        return found


def test_time_counts_once_for_the_innermost_part():
    now = Clock()
    clock, step = PartClock(now), Step(now)
    now.now += 100  # before: counts nowhere
    with watching(clock, [Wrapped(step, "inner", "in"), Wrapped(step, "outer", "out")]):
        assert step.step() == "inner"
    assert clock.seconds == {"rest": 3.0, "out": 5.0, "in": 2.0}
    step.step()  # afterwards: nothing is wrapped any more
    assert sum(clock.seconds.values()) == 10.0


def test_two_methods_may_share_a_part_and_an_error_closes_it():
    now = Clock()
    clock, step = PartClock(now), Step(now)

    def fail() -> None:
        now.now += 7
        raise ArithmeticError

    step.inner = fail  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError), watching(clock, [Wrapped(step, "inner", "p"), Wrapped(step, "outer", "p")]):
        step.step()
    assert clock.seconds == {"rest": 1.0, "p": 11.0}


def test_shares_are_of_each_step_and_add_up():
    rows = share_rows("what", [{"a": 1.0, "rest": 3.0}, {"a": 4.0, "rest": 4.0}, {"rest": 5.0, "b": 5.0}])
    shares = {row.left: row.ratio.median for row in rows}
    assert shares == {"rest": 0.5, "a": 0.25, "b": 0.0}  # of .75 .5 .5, of .25 .5 0, of 0 0 .5
    assert [row.left for row in rows] == ["rest", "a", "b"]
    assert rows[0].right_amount == rows[1].right_amount
    assert rows[0].right_amount.median == 8.0
