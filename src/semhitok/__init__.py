"""semhitok: unified image tokenizers. One set of discrete image tokens to understand and to generate images.

Importing the package registers its models with the Auto classes of transformers.
"""

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig, SemHiTokMLLMProcessor
from semhitok.tokenizers import (
    SemHiTokConfig,
    SemHiTokModel,
    TokenizerImageProcessor,
    UniTokConfig,
    UniTokModel,
    UniTokProcessor,
)

__version__ = "0.1.0"

__all__ = [
    "SemHiTokConfig",
    "SemHiTokForConditionalGeneration",
    "SemHiTokMLLMConfig",
    "SemHiTokMLLMProcessor",
    "SemHiTokModel",
    "TokenizerImageProcessor",
    "UniTokConfig",
    "UniTokModel",
    "UniTokProcessor",
    "__version__",
]
