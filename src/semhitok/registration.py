"""The models of this package in the Auto classes of transformers."""

from __future__ import annotations


def register() -> None:
    """Register configurations, models and processors; called by ``import semhitok``, see ``lazy.after_transformers``."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

    from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig, SemHiTokMLLMProcessor
    from semhitok.tokenizers.registry import register_auto_classes

    register_auto_classes()
    AutoConfig.register(SemHiTokMLLMConfig.model_type, SemHiTokMLLMConfig, exist_ok=True)
    AutoModelForImageTextToText.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
    AutoModelForMultimodalLM.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(SemHiTokMLLMConfig, SemHiTokMLLMProcessor, exist_ok=True)
