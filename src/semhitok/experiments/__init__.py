"""Reproducible tables: the papers' ablations, the controls they lack, and extensions; ``semhitok ablate NAME``."""

from semhitok.experiments.experiment import (
    ExperimentContext,
    InterruptionError,
    build_metrics,
    language_context,
    open_context,
)
from semhitok.experiments.language_tables import adapters
from semhitok.experiments.running import results_of, run
from semhitok.experiments.semhitok_tables import (
    adaptive,
    concatenation,
    controls,
    key_design,
    losses,
    semantic_codebook_size,
    semantic_quantizer,
    sub_codebook_error,
)
from semhitok.experiments.table import Ablation, draw
from semhitok.experiments.unitok_tables import (
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

__all__ = [
    "ABLATIONS",
    "Ablation",
    "ExperimentContext",
    "InterruptionError",
    "build_metrics",
    "draw",
    "language_context",
    "open_context",
    "results_of",
    "run",
]
