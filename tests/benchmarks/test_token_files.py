"""The short form of the campaign on token files; the long one is in docs/experiments.md."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from benchmarks.token_files import campaign


def test_kills_and_corrupt_images_change_no_token_file():
    found = campaign(200, kills=1, seed=0, per_tar=10)
    assert found["same_after_kills"]
    assert (found["corrupt"], found["only_left_out"]) == (1, True)
    assert found["mib_200"] > 0
