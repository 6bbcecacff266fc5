"""Image tokenizers under one protocol, registered with the Auto classes of transformers."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel

from semhitok.tokenizers.protocol import ImageTokenizer
from semhitok.tokenizers.semhitok import SemHiTokConfig, SemHiTokImageProcessor, SemHiTokModel

AutoConfig.register(SemHiTokConfig.model_type, SemHiTokConfig, exist_ok=True)
AutoModel.register(SemHiTokConfig, SemHiTokModel, exist_ok=True)
AutoImageProcessor.register(SemHiTokConfig, slow_image_processor_class=SemHiTokImageProcessor, exist_ok=True)

__all__ = ["ImageTokenizer", "SemHiTokConfig", "SemHiTokImageProcessor", "SemHiTokModel"]
