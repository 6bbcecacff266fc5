"""The models of this package in the Auto classes of transformers."""

from __future__ import annotations


def register() -> None:
    """Register configurations, models and processors; called by ``import semhitok``, see ``lazy.after_transformers``."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoProcessor,
    )

    from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig, SemHiTokMLLMProcessor
    from semhitok.tokenizers import (
        SemHiTokConfig,
        SemHiTokModel,
        TokenizerImageProcessor,
        UniTokConfig,
        UniTokModel,
        UniTokProcessor,
    )

    for config, model in ((SemHiTokConfig, SemHiTokModel), (UniTokConfig, UniTokModel)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
        AutoImageProcessor.register(config, slow_image_processor_class=TokenizerImageProcessor, exist_ok=True)
    AutoProcessor.register(UniTokConfig, UniTokProcessor, exist_ok=True)
    AutoConfig.register(SemHiTokMLLMConfig.model_type, SemHiTokMLLMConfig, exist_ok=True)
    AutoModelForImageTextToText.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
    AutoModelForMultimodalLM.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(SemHiTokMLLMConfig, SemHiTokMLLMProcessor, exist_ok=True)
