"""semhitok: unified image tokenizers. One set of discrete image tokens to understand and to generate images.

    >>> from semhitok import encode_images, load_tokenizer, reconstruct_images
    >>> tokenizer = load_tokenizer("mini")
    >>> [(encoded.ids.shape, encoded.grid) for encoded in encode_images(tokenizer, ["a.jpg", "b.png"])]
    [(torch.Size([2, 256]), (16, 16))]
    >>> for restored in reconstruct_images(tokenizer, ["a.jpg", "b.png"]):
    ...     restored.image().save(f"{restored.source}.restored.png")

    >>> from semhitok import Conversation, ImageGenerator, load_language_model
    >>> model, processor = load_language_model("mllm_nano")
    >>> answer = Conversation(model, processor, ["a.jpg"]).ask("what is there?")
    >>> red, black = ImageGenerator(model, processor)(["a red bird", "a black cat"], seeds=[0, 1])

Importing the package costs next to nothing: names are resolved when they are first used, and the models are registered with
the Auto classes of transformers as soon as that is imported.
"""

from typing import TYPE_CHECKING

from semhitok.lazy import after_transformers, lazy_names
from semhitok.registration import register

if TYPE_CHECKING:
    from semhitok.inference.answering import answer_questions, caption_images
    from semhitok.inference.code_patches import find_patches
    from semhitok.inference.conversation import Conversation
    from semhitok.inference.image_codes import read_codes
    from semhitok.inference.image_generator import ImageGenerator
    from semhitok.inference.loading import load_language_model, load_tokenizer
    from semhitok.inference.reconstruction import decode_ids, encode_images, reconstruct_images
    from semhitok.inference.token_files import load_ids, save_ids
    from semhitok.mllm.configuration import SemHiTokMLLMConfig
    from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
    from semhitok.mllm.processing import SemHiTokMLLMProcessor
    from semhitok.tokenizers.image_processing import TokenizerImageProcessor
    from semhitok.tokenizers.semhitok.configuration import SemHiTokConfig
    from semhitok.tokenizers.semhitok.modeling import SemHiTokModel
    from semhitok.tokenizers.unitok.configuration import UniTokConfig
    from semhitok.tokenizers.unitok.modeling import UniTokModel
    from semhitok.tokenizers.unitok.processing import UniTokProcessor
    from semhitok.tokenizers.vit_tokenizer.configuration import ViTTokenizerConfig
    from semhitok.tokenizers.vit_tokenizer.modeling import ViTTokenizerModel
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Conversation": "semhitok.inference.conversation",
            "ImageGenerator": "semhitok.inference.image_generator",
            "SemHiTokConfig": "semhitok.tokenizers.semhitok.configuration",
            "SemHiTokForConditionalGeneration": "semhitok.mllm.modeling",
            "SemHiTokMLLMConfig": "semhitok.mllm.configuration",
            "SemHiTokMLLMProcessor": "semhitok.mllm.processing",
            "SemHiTokModel": "semhitok.tokenizers.semhitok.modeling",
            "TokenizerImageProcessor": "semhitok.tokenizers.image_processing",
            "UniTokConfig": "semhitok.tokenizers.unitok.configuration",
            "UniTokModel": "semhitok.tokenizers.unitok.modeling",
            "UniTokProcessor": "semhitok.tokenizers.unitok.processing",
            "ViTTokenizerConfig": "semhitok.tokenizers.vit_tokenizer.configuration",
            "ViTTokenizerModel": "semhitok.tokenizers.vit_tokenizer.modeling",
            "answer_questions": "semhitok.inference.answering",
            "caption_images": "semhitok.inference.answering",
            "decode_ids": "semhitok.inference.reconstruction",
            "encode_images": "semhitok.inference.reconstruction",
            "find_patches": "semhitok.inference.code_patches",
            "load_ids": "semhitok.inference.token_files",
            "load_language_model": "semhitok.inference.loading",
            "load_tokenizer": "semhitok.inference.loading",
            "read_codes": "semhitok.inference.image_codes",
            "reconstruct_images": "semhitok.inference.reconstruction",
            "save_ids": "semhitok.inference.token_files",
        },
    )

__version__ = "0.2.0"

__all__ = [
    "Conversation",
    "ImageGenerator",
    "SemHiTokConfig",
    "SemHiTokForConditionalGeneration",
    "SemHiTokMLLMConfig",
    "SemHiTokMLLMProcessor",
    "SemHiTokModel",
    "TokenizerImageProcessor",
    "UniTokConfig",
    "UniTokModel",
    "UniTokProcessor",
    "ViTTokenizerConfig",
    "ViTTokenizerModel",
    "__version__",
    "answer_questions",
    "caption_images",
    "decode_ids",
    "encode_images",
    "find_patches",
    "load_ids",
    "load_language_model",
    "load_tokenizer",
    "read_codes",
    "reconstruct_images",
    "save_ids",
]

after_transformers(register)
