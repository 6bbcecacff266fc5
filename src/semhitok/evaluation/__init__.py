"""Measuring tokenizers: reconstruction, Fréchet distances, codebooks, a category probe, rate; and the report."""

from semhitok.evaluation.evaluate import evaluate
from semhitok.evaluation.frechet import efficientnet_lite2_features, frechet_distance, inception_features, rfid
from semhitok.evaluation.probe import ProbeResult, probe
from semhitok.evaluation.report import EvaluationReport, GroupReport
from semhitok.evaluation.stages import StageConflict, stage_conflict

__all__ = [
    "EvaluationReport",
    "GroupReport",
    "ProbeResult",
    "StageConflict",
    "efficientnet_lite2_features",
    "evaluate",
    "frechet_distance",
    "inception_features",
    "probe",
    "rfid",
    "stage_conflict",
]
