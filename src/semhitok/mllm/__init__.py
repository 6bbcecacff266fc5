"""The unified multimodal language model: one causal LM that understands and generates images (arXiv 2503.06764, section 3.3)."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

from semhitok.mllm.configuration import AdapterKind, SemHiTokMLLMConfig
from semhitok.mllm.legal_ids import GenerationMode
from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
from semhitok.mllm.processing import SemHiTokMLLMProcessor
from semhitok.mllm.sampling import Sampling
from semhitok.mllm.vocabulary import Vocabulary

AutoConfig.register(SemHiTokMLLMConfig.model_type, SemHiTokMLLMConfig, exist_ok=True)
AutoModelForImageTextToText.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(SemHiTokMLLMConfig, SemHiTokForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SemHiTokMLLMConfig, SemHiTokMLLMProcessor, exist_ok=True)

__all__ = [
    "AdapterKind",
    "GenerationMode",
    "Sampling",
    "SemHiTokForConditionalGeneration",
    "SemHiTokMLLMConfig",
    "SemHiTokMLLMProcessor",
    "Vocabulary",
]
