"""Tables of the language model at ``nano`` size: the adapters of Table 7 and the upper bound of Table 4."""

from __future__ import annotations

from dataclasses import replace

from semhitok.experiments.language import UnderstandingExperiment, ablation_recipe
from semhitok.experiments.table import Ablation, Metric, Row
from semhitok.types import AdapterKind

EXISTENCE = Metric("existence", "existence, %", 1, 100)
COUNT = Metric("count", "count, %", 1, 100)
COUNT_BLIND = Metric("count_blind", "blind, %", 1, 100)
POSITION = Metric("position", "position, %", 1, 100)
CATEGORY = Metric("category", "category, %", 1, 100)
CATEGORY_BLIND = Metric("category_blind", "blind, %", 1, 100)
CAPTIONS = Metric("captions", "captions, F1", 1, 100)


def adapters() -> Ablation:
    """How visual ids become embeddings, beside the teacher's continuous features."""

    def row(label: str, adapter: AdapterKind, paper: dict[str, str]) -> Row:
        recipe = replace(ablation_recipe(), adapter=adapter)
        return Row({"input": label}, UnderstandingExperiment(f"mllm-{adapter}", recipe), paper)

    continuous = replace(ablation_recipe(), adapter="single", continuous=True)
    unaligned = replace(ablation_recipe(), stages=("pretrain",))
    return Ablation(
        name="mllm-adapters",
        title="What the language model sees of an image",
        source="SemHiTok, Table 7 (MME-P, SEED; LLaVA-v1.5 setting) and Table 4 (first row: SigLIP's continuous features)",
        rows=(
            Row(
                {"input": "the teacher's features, continuous"},
                UnderstandingExperiment("mllm-continuous", continuous),
                {"MME-P": "1481.0", "SEED": "65.28"},
            ),
            row("semantic codes", "semantic", {"MME-P": "1387.5", "SEED": "62.3"}),
            row("pixel codes", "pixel", {}),
            row("both, single MLP", "single", {"MME-P": "1355.8", "SEED": "62.9"}),
            row("both, dual MLP", "dual", {"MME-P": "1393.0", "SEED": "63.2"}),
            Row(
                {"input": "both, dual MLP, without stage align"},
                UnderstandingExperiment("mllm-dual-unaligned", unaligned),
            ),
        ),
        metrics=(EXISTENCE, COUNT, COUNT_BLIND, POSITION, CATEGORY, CATEGORY_BLIND, CAPTIONS),
        note="Each run: a language model of 4 layers of width 128 from random weights; 400 steps of 24 rows of 448 tokens that put "
        "what it sees among the words of captions, then 700 steps of 8 rows of captions and questions about scenes-100; "
        "measured on new compositions of the same cut-outs on other photographs. "
        "Existence and position are balanced: blind is 50 %.",
    )
