"""The open question on SGHC: what is it worth that sub-codebooks belong to meanings? ``semhitok compare --train sghc``.

All rows have the same semantic codes (512), m = 8 pixel codes in a sub-codebook and hence equal bits; they differ in which
sub-codebook a patch uses, and in the steps of the pixel stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semhitok.experiments.compared import ComparedExperiment
from semhitok.experiments.semhitok import SemanticGroups, SemHiTokExperiment, ablation_recipe
from semhitok.types import Stage

SEMANTIC_CODES, PIXEL_CODES = 512, 8
LONGER = 4

SGHC_ROWS: dict[str, str] = {
    "semhitok": "by semantic code (SGHC)",
    "sghc-random": "at random, by semantic code and position",
    "sghc-shared": "one for all",
    "sghc-alike-128": "by 128 groups of alike semantic codes",
    "sghc-random-128": "by 128 groups of random semantic codes",
    "sghc-alike-32": "by 32 groups of alike semantic codes",
    "sghc-random-32": "by 32 groups of random semantic codes",
    "semhitok-4x": "by semantic code (SGHC), 4 times the steps",
    "sghc-random-4x": "at random, by semantic code and position, 4 times the steps",
    "sghc-shared-4x": "one for all, 4 times the steps",
}
"""Which sub-codebook a patch uses, by system."""


def sghc_experiment(system: str) -> ComparedExperiment:
    """A row of ``SGHC_ROWS``."""
    rules = {"sghc-random": "random", "sghc-shared": "shared"}
    base = system.removesuffix("-4x")
    model = {"pixel_codebook": rules[base]} if base in rules else {}
    grouped = None
    if base.endswith(("-32", "-128")):
        kind, groups = base.removeprefix("sghc-").split("-")
        grouped = SemanticGroups("alike" if kind == "alike" else "random", int(groups))
    longer = LONGER if system.endswith("-4x") else 1
    return semhitok_system(system, ("semantic", "pixel"), model, grouped=grouped, longer=longer)


def semhitok_system(
    name: str,
    stages: tuple[Stage, ...],
    model: Mapping[str, Any] | None = None,
    *,
    grouped: SemanticGroups | None = None,
    longer: int = 1,
) -> ComparedExperiment:
    """SemHiTok at its ablation size with 4,096 ids: 512 semantic codes of 8 pixel codes each, unless ``model`` says otherwise.

    Args:
        name: name of the system.
        stages: stages to train.
        model: further fields of the model.
        grouped: see ``SemHiTokExperiment``.
        longer: factor on the steps of the pixel stage.
    """
    recipe = ablation_recipe()
    fields = {"semantic_codebook_size": SEMANTIC_CODES, "subcodebook_size": PIXEL_CODES, **(model or {})}
    recipe = replace(recipe, model=recipe.model | fields)
    if longer > 1:
        recipe = recipe.with_loop("pixel", steps=longer * recipe.pixel.loop.steps)
    return ComparedExperiment(name, SemHiTokExperiment(name, recipe, stages=stages, grouped=grouped))
