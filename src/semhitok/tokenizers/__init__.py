"""Image tokenizers under one protocol, registered with the Auto classes of transformers."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor

from semhitok.tokenizers.image_processing import TokenizerImageProcessor
from semhitok.tokenizers.protocol import ImageTokenizer
from semhitok.tokenizers.semhitok import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.unitok import UniTokConfig, UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor

for _config, _model in ((SemHiTokConfig, SemHiTokModel), (UniTokConfig, UniTokModel)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoImageProcessor.register(_config, slow_image_processor_class=TokenizerImageProcessor, exist_ok=True)
AutoProcessor.register(UniTokConfig, UniTokProcessor, exist_ok=True)

__all__ = [
    "ImageTokenizer",
    "SemHiTokConfig",
    "SemHiTokModel",
    "TokenizerImageProcessor",
    "UniTokConfig",
    "UniTokModel",
    "UniTokProcessor",
]
