"""The bundled models under what callers choose, and the two ways of sampling."""

from __future__ import annotations

from benchmarks.precision import changed_choices, changed_ids


def test_no_id_depends_on_the_callers_precision():
    *chosen, cast = changed_ids().values()
    assert chosen == [0, 0, 0]
    assert 0 < cast < 0.2


def test_choices_by_gumbel_numbers_stand_rounding():
    assert changed_choices(20)["Gumbel numbers"] == 0
