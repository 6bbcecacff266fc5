"""Tables that can be rerun: the papers' ablations, the controls they lack, and what goes beyond; ``semhitok ablate NAME``."""

from semhitok.recipes.ablations.experiment import InterruptionError, Workplace, instruments
from semhitok.recipes.ablations.running import results_of, run
from semhitok.recipes.ablations.semhitok_tables import (
    concatenation,
    controls,
    key_design,
    semantic_codebook_size,
    semantic_quantizer,
)
from semhitok.recipes.ablations.table import Ablation, draw

ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        key_design(),
        concatenation(),
        semantic_quantizer(),
        semantic_codebook_size(),
        controls(),
    )
}

__all__ = ["ABLATIONS", "Ablation", "InterruptionError", "Workplace", "draw", "instruments", "results_of", "run"]
