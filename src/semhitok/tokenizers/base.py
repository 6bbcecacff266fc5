"""What the tokenizers share besides their networks: sizes, loading and saving, with or without the encoder side."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from semhitok.quantizers import Quantizer
from semhitok.tokenizers.checkpoints import load_strictly
from semhitok.tokenizers.image_processing import TokenizerImageProcessor


class TokenizerModel(PreTrainedModel):
    """A ``PreTrainedModel`` with the part of the protocol ``Tokenizer`` that its configuration decides.

    The configuration has ``image_size``, ``grid``, ``vocab_size``, ``codes_per_token`` and ``encoder``. The network, ``encode``,
    ``decode``, ``embed`` and the self-description are those of each tokenizer.

    Attributes:
        encoder_side: prefixes of the names of the tensors that only encoding needs. A model whose configuration has ``encoder``
            False is built without them, and ignores them in a checkpoint.
    """

    if TYPE_CHECKING:  # transformers takes an annotation for the class of the configuration
        config: Any
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # pyright: ignore[reportAssignmentType]
    _supports_sdpa = True
    encoder_side: tuple[str, ...] = ()

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        if not self.config.encoder:
            self._keys_to_ignore_on_load_unexpected = [f"^{re.escape(prefix)}" for prefix in self.encoder_side]

    @property
    def vocab_size(self) -> int:
        """Number of ids; with several codes per token, of each code."""
        return self.config.vocab_size

    @property
    def num_tokens(self) -> int:
        """Tokens of a square image of the default size."""
        return math.prod(self.config.grid(self.config.image_size, self.config.image_size))

    @property
    def codes_per_token(self) -> int:
        """C."""
        return self.config.codes_per_token

    def load_processor(self, place: str | os.PathLike[str]) -> Any:
        """The image processor of the default size, independent of the checkpoint."""
        return TokenizerImageProcessor(size=self.config.image_size)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Self:
        """Load a checkpoint: a folder, a hub id, or the name of one bundled with the package.

        ``encoder=False`` omits the parts that decoding and embedding do not need. Other arguments are as in transformers.
        Missing, unexpected or misshapen keys raise a ``ValueError`` that names them.
        """
        load, kind = super().from_pretrained, cls.config_class.model_type  # pyright: ignore[reportOptionalMemberAccess]
        return load_strictly(load, pretrained_model_name_or_path, kind, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As in transformers, safetensors only; the image processor's configuration is written as well."""
        super().save_pretrained(save_directory, **kwargs)
        TokenizerImageProcessor(size=self.config.image_size).save_pretrained(Path(save_directory))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Quantizer):
            module.reset_parameters()
