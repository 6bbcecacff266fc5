"""The registry of image tokenizers. To add one, add a folder next to this file and one line here.

Packages are imported on first use: the table can be read without torch or transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

# ``model_type`` to the package that defines the kind as ``TOKENIZER``.
TOKENIZERS = {
    "semhitok": "semhitok.tokenizers.semhitok",
    "unitok": "semhitok.tokenizers.unitok",
    "vit_tokenizer": "semhitok.tokenizers.vit_tokenizer",
    "released_tokenizer": "semhitok.tokenizers.released",
}

# Types of others' checkpoints from which ``released_tokenizer`` takes its VQ-VAE: its class of transformers, or the whole model.
RELEASED = ("janus_vqgan", "chameleon_vqgan", "emu3_vqgan", "janus", "chameleon", "emu3")


@dataclass(frozen=True)
class TokenizerKind:
    """One kind of tokenizer, declared as ``TOKENIZER`` by its package.

    Attributes:
        config_class: its ``model_type`` is the key of the table.
        model_class: a ``PreTrainedModel`` that follows the protocol ``Tokenizer``.
        stages: names of its training stages in order. A run with several stages has a folder for each; a run with one
            stage uses its own folder.
        processor_class: prepares images and texts, for tokenizers with a text tower. Images alone are prepared by
            ``TokenizerImageProcessor``.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    stages: tuple[str, ...]
    processor_class: type[ProcessorMixin] | None = None


def tokenizer_kind(model_type: str) -> TokenizerKind:
    """The kind with this ``model_type``, a key of ``TOKENIZERS``; imports its package."""
    return import_module(TOKENIZERS[model_type]).TOKENIZER


def register_auto_classes() -> None:
    """Make every tokenizer known to the Auto classes of transformers; safe to call again."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor

    from semhitok.tokenizers.image_processing import TokenizerImageProcessor

    for kind in map(tokenizer_kind, TOKENIZERS):
        AutoConfig.register(kind.config_class.model_type, kind.config_class, exist_ok=True)
        AutoModel.register(kind.config_class, kind.model_class, exist_ok=True)
        AutoImageProcessor.register(
            kind.config_class, slow_image_processor_class=TokenizerImageProcessor, exist_ok=True
        )
        if kind.processor_class is not None:
            AutoProcessor.register(kind.config_class, kind.processor_class, exist_ok=True)
