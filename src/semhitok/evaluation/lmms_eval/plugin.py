"""The entry point of the group ``lmms_eval.models``.

Separate from the model: lmms-eval loads it during its own import, and the model needs lmms-eval fully imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

MODEL_ID = "semhitok"


def manifest() -> ModelManifest:
    """Manifest of ``--model semhitok``; with ``--force_simple``, tasks that rank given answers run, too."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=MODEL_ID,
        chat_class_path="semhitok.evaluation.lmms_eval.model.SemHiTok",
        simple_class_path="semhitok.evaluation.lmms_eval.model.SemHiTokSimple",
    )
