"""Reading beside computing: in order, while the consumer works, and no further ahead than asked for."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image

from semhitok.data.reading import SizedImages, in_batches, in_threads
from semhitok.data.sample import Sample


def test_results_come_in_order_and_no_further_ahead_than_asked():
    begun = []

    def load(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number * number

    seen = []
    for number, found in enumerate(in_threads(load, iter(range(40)), threads=3, ahead=5)):
        seen.append(found)
        assert len(begun) <= number + 1 + 5
    assert seen == [number * number for number in range(40)]
    assert list(in_batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_error_is_raised_in_its_turn_and_a_consumer_that_leaves_stops_the_reading():
    done = []

    def load(number: int) -> int:
        if number == 3:
            raise ValueError("the third")
        time.sleep(0.01)
        done.append(number)
        return number

    found = in_threads(load, range(100), threads=1, ahead=50)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(found)
    assert len(done) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


class Counted:
    """Tells which images have been read."""

    fingerprint = "counted"

    def __init__(self) -> None:
        self.read: set[int] = set()

    def __len__(self) -> int:
        return 24

    def key(self, index: int) -> str:
        return str(index)

    def load(self, index: int) -> Sample:
        self.read.add(index)
        return Sample(Image.new("RGB", (16, 16)), str(index))


def test_the_next_batch_is_read_while_the_consumer_is_busy():
    source = Counted()
    for number, batch in enumerate(SizedImages(source, 16, batch_size=8)):
        assert batch.positions == list(range(8 * number, 8 * number + 8))
        wanted = set(range(min(24, 8 * number + 16)))
        until = time.monotonic() + 20
        while source.read != wanted and time.monotonic() < until:
            time.sleep(0.001)  # busy; asks for nothing
        assert source.read == wanted
