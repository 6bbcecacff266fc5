"""Tables that can be rerun: the papers' ablations, the controls they lack, and what goes beyond; ``semhitok ablate NAME``."""

from semhitok.recipes.ablations.experiment import InterruptionError, Workplace, instruments
from semhitok.recipes.ablations.language_tables import adapters
from semhitok.recipes.ablations.running import results_of, run
from semhitok.recipes.ablations.semhitok_tables import (
    adaptive,
    concatenation,
    controls,
    key_design,
    losses,
    semantic_codebook_size,
    semantic_quantizer,
    sub_codebook_error,
)
from semhitok.recipes.ablations.table import Ablation, draw
from semhitok.recipes.ablations.unitok_tables import (
    projection,
    quantization,
    quantization_error,
    road,
    sub_codebooks,
    supervision,
)

ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        key_design(),
        concatenation(),
        semantic_quantizer(),
        semantic_codebook_size(),
        controls(),
        sub_codebook_error(),
        adaptive(),
        losses(),
        quantization(),
        quantization_error(),
        sub_codebooks(),
        supervision(),
        projection(),
        road(),
        adapters(),
    )
}

__all__ = ["ABLATIONS", "Ablation", "InterruptionError", "Workplace", "draw", "instruments", "results_of", "run"]
