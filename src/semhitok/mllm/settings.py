"""Settings of a unified model as plain values, for ``semhitok inspect`` and other displays of checkpoints."""

from __future__ import annotations

from typing import Any

from semhitok.mllm.continuous import ContinuousProjector
from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
from semhitok.tokenizers.settings import parameters_of, settings_of


def language_settings_of(
    model: SemHiTokForConditionalGeneration, projector: ContinuousProjector | None = None
) -> dict[str, Any]:
    """Type, stages, language model, ids, adapter, parameters by part, image tokenizer, licence and training, as JSON values.

    A projector that was saved with the model is listed instead of the adapter.
    """
    config, vocabulary, tokenizer = model.config, model.vocabulary, model.image_tokenizer
    text = config.text_config
    return {
        "type": config.model_type,
        "stages": getattr(config, "stages", []),
        "language_model": {"type": text.model_type, "layers": text.num_hidden_layers, "width": text.hidden_size},
        "context_length": config.context_length,
        "text_ids": vocabulary.text_size,
        "visual_ids": vocabulary.visual_size,
        "codes_per_token": vocabulary.codes_per_token,
        "tokens_of_an_image": vocabulary.image_tokens,
        "adapter": config.adapter if projector is None else "continuous",
        "parameters": parameters_of(model)
        | ({} if projector is None else {"projector": parameters_of(projector)["all"]}),
        "image_tokenizer": settings_of(tokenizer),
        "provenance": getattr(config, "provenance", {}),
    }
