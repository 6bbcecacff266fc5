"""Before anything is loaded: what certainly does not fit is an error, what may not fit is a line."""

from __future__ import annotations

import pytest
import torch

from semhitok.runs.memory_check import GIB, check_memory, free_memory
from semhitok.runs.planning.costs import Memory


def test_what_cannot_fit_is_refused_and_what_may_not_is_told():
    memory = Memory(weights=30 * GIB, gradients=10 * GIB, optimizer=20 * GIB, activations=15 * GIB)
    with pytest.raises(ValueError, match=r"need 60\.0 GiB on each GPU, 40\.0 GiB are free: use --shard full"):
        check_memory(memory, 40 * GIB)
    warning = check_memory(memory, 70 * GIB)
    assert warning is not None
    assert warning.startswith("about 75.0 GiB are needed on each GPU, 70.0 GiB are free")
    assert check_memory(memory, 80 * GIB) is None
    assert check_memory(memory, free_memory(torch.device("cpu"))) is None
