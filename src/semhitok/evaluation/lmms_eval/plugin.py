"""What lmms-eval finds under the entry point group ``lmms_eval.models``.

Apart from the model: lmms-eval reads this while it is itself being imported, and the model needs it whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

MODEL_ID = "semhitok"


def manifest() -> ModelManifest:
    """``--model semhitok``; with ``--force_simple`` tasks that rank given answers run too."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=MODEL_ID,
        chat_class_path="semhitok.evaluation.lmms_eval.model.SemHiTok",
        simple_class_path="semhitok.evaluation.lmms_eval.model.SemHiTokSimple",
    )
