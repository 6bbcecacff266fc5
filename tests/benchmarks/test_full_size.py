"""The full-size benchmark on tiny models: it checks for itself that a step trains what it should and nothing else."""

from __future__ import annotations

import pytest
import torch
from benchmarks.full_size import STAGES, TEACHERS, Measurement, measure, table
from transformers import SiglipVisionConfig, SiglipVisionModel


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_takes_a_step(stage: str):
    measured = measure("semhitok_384", stage, tiny=True)
    assert measured.tokens == 9  # 48 px with patch 14: 3 x 3, and 6 px over
    assert measured.trained > 0
    assert (measured.discriminator > 0) == (stage != "semantic")
    assert measured.step_seconds > 0
    assert measured.peak_bytes > 2**20


def test_unitok_takes_a_step():
    measured = measure("unitok_large", "unitok", tiny=True)
    assert (measured.batch, measured.tokens, measured.frozen) == (2, 4, 0)
    assert measured.discriminator > 0


@pytest.mark.parametrize(("recipe", "millions"), [("semhitok_256", 316.0), ("semhitok_384", 428.2)])
def test_teachers_have_the_published_number_of_parameters(recipe: str, millions: float):
    with torch.device("meta"):
        tower = SiglipVisionModel(SiglipVisionConfig(**TEACHERS[recipe]))
    assert sum(parameter.numel() for parameter in tower.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)


def test_the_table_states_counts_in_millions_and_memory_in_gibibytes():
    entry = Measurement("r", "s", 2, 9, 1_500_000, 20_000_000, 0, 1.0, 2.25, 4.0, 3 * 2**30, 0.5)
    assert table([entry]).splitlines()[-1] == (
        "| `r` | s | 2 | 9 | 1.5M | 20.0M | 0.0M | 1.0 s | 2.2 s | 4.0 s | 3.00 GiB | 0.500 |"
    )
