"""The mixture: exact shares, whole epochs, and nothing but (seed, position) decides."""

from __future__ import annotations

from collections import Counter

import pytest

from semhitok.data.mixture import BLOCK, Mixture
from semhitok.data.records import Record


class Numbers:
    """Records whose text says which they are."""

    def __init__(self, name: str, length: int) -> None:
        self.fingerprint, self._length = f"{name} {length}", length

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        return f"{self.fingerprint} {index}"

    def read(self, index: int, choice: int) -> Record:
        return Record("text", self.name(index), f"{index} {choice}")


def mixed(seed: int = 3) -> Mixture:
    return Mixture([Numbers("a", 700), Numbers("b", 90), Numbers("c", 5000)], [2.0, 1.0, 0.9], seed)


def test_shares_are_exact_and_every_source_goes_through_whole_epochs():
    mixture, blocks = mixed(), 3
    drawn = [mixture.at(position) for position in range(blocks * BLOCK)]
    for source, share in enumerate((2 / 3.9, 1 / 3.9, 0.9 / 3.9)):
        own = [each for each in drawn if each.source == source]
        assert abs(len(own) - share * len(drawn)) <= 1
        length = len(mixture.sources[source])
        counts = Counter(each.index for each in own)
        # Each record as often as any other, or once more in the epoch that has begun.
        assert set(counts.values()) <= {len(own) // length, len(own) // length + 1}
        assert len(counts) == min(length, len(own))


def test_sources_are_mixed_at_close_range():
    mixture = mixed()
    for start in range(0, BLOCK, 256):
        assert {mixture.at(position).source for position in range(start, start + 256)} == {0, 1, 2}


def test_any_position_can_be_asked_for_in_any_order():
    positions = [0, 9000, 17, BLOCK - 1, BLOCK, 123_456]
    forward = {position: mixed().at(position) for position in positions}
    mixture = mixed()
    assert {position: mixture.at(position) for position in reversed(positions)} == forward
    assert mixed(seed=4).at(17) != forward[17]
    assert mixed(seed=4).fingerprint != mixed().fingerprint == mixture.fingerprint


def test_chances_are_uniform_and_choices_differ():
    drawn = [mixed().at(position) for position in range(500)]
    assert 0.05 < sum(each.chance < 0.1 for each in drawn) / 500 < 0.15
    assert len({each.choice for each in drawn}) == 500


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "one weight for each"),
        ([1.0, 0.0], "above 0"),
        ([1.0, float("nan")], "above 0"),
        ([1.0, 1e-5], "at least 0.05%"),
    ],
)
def test_weights_that_make_no_sense(weights: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        Mixture([Numbers("a", 2), Numbers("b", 2)], weights, 0)
