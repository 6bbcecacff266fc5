"""The unified multimodal language model, which understands and generates images (arXiv 2503.06764, section 3.3)."""

from typing import TYPE_CHECKING

from semhitok.lazy import lazy_names

if TYPE_CHECKING:
    from semhitok.mllm.configuration import AdapterKind, SemHiTokMLLMConfig
    from semhitok.mllm.legal_ids import GenerationMode
    from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
    from semhitok.mllm.processing import SemHiTokMLLMProcessor
    from semhitok.mllm.sampling import Sampling
    from semhitok.mllm.vocabulary import Vocabulary
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AdapterKind": "semhitok.mllm.configuration",
            "GenerationMode": "semhitok.mllm.legal_ids",
            "Sampling": "semhitok.mllm.sampling",
            "SemHiTokForConditionalGeneration": "semhitok.mllm.modeling",
            "SemHiTokMLLMConfig": "semhitok.mllm.configuration",
            "SemHiTokMLLMProcessor": "semhitok.mllm.processing",
            "Vocabulary": "semhitok.mllm.vocabulary",
        },
    )

__all__ = [
    "AdapterKind",
    "GenerationMode",
    "Sampling",
    "SemHiTokForConditionalGeneration",
    "SemHiTokMLLMConfig",
    "SemHiTokMLLMProcessor",
    "Vocabulary",
]
