"""Evaluation of tokenizers (reconstruction, semantics) and of language models (understanding, generation, lmms-eval)."""

from semhitok.evaluation.tokenizer.evaluate import evaluate
from semhitok.evaluation.tokenizer.report import EvaluationReport, GroupReport
from semhitok.evaluation.tokenizer.stages import StageConflict, stage_conflict
from semhitok.metrics.frechet import efficientnet_lite2_features, frechet_distance, inception_features
from semhitok.metrics.probe import ProbeResult, probe

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
    "stage_conflict",
]
