"""The short form of the campaign against hostile data; the long one is in docs/experiments.md."""

from __future__ import annotations

import warnings

import pytest
from benchmarks.hostile_data import campaign, picture_trial, record_trial


@pytest.mark.parametrize(("trial", "count"), [(picture_trial, 800), (record_trial, 120)])
def test_hostile_data_is_read_as_it_is_or_refused_in_a_sentence(trial, count: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, faults = campaign(trial, count)
    assert not faults
    assert min(outcomes["read"], outcomes["refused"]) > count / 20
