"""Images and texts to the inputs of a UniTok model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.checkpoints import builtin_checkpoint
from semhitok.tokenizers.image_processing import ImageLike
from semhitok.tokenizers.processors import tried
from semhitok.types import FitOrTile


class UniTokProcessor(ProcessorMixin):
    """Images -> ``pixel_values``; texts -> ``input_ids`` and ``attention_mask``; both in one call.

    ``image_processor`` is a ``TokenizerImageProcessor``. ``tokenizer`` is the text tokenizer, a name that transformers
    requires: it loads it from the model's folder (``tokenizer.json``) and passes it to its pipelines.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> UniTokProcessor:
        """Load the processor of a checkpoint: a folder, a hub id, or the name of one bundled with the package."""
        load = tried(super().from_pretrained)
        return load_without_foreign_code(load, builtin_checkpoint(pretrained_model_name_or_path), **kwargs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        mode: FitOrTile | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare images, texts, or both; their numbers need not agree.

        Args:
            images: one image or several, see ``TokenizerImageProcessor``.
            text: one text or several; texts beyond the context length are truncated, keeping the end token.
            mode: how images are fitted; by default as configured.
            padding: True pads to the longest text, "max_length" to the context length, with the end token and mask 0.
            return_tensors: "pt", or None for lists of ids.

        Returns:
            pixel_values (B,3,size,size) in [-1,1]; input_ids and attention_mask (T,L), integers.

        Raises:
            ValueError: neither images nor texts are given.
        """
        if images is None and text is None:
            raise ValueError("neither images nor text were given, at least one of them is needed")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, mode=mode, return_tensors=return_tensors))
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            data.update(
                self.tokenizer(
                    texts, padding=padding, truncation=True, split_special_tokens=True, return_tensors=return_tensors
                )
            )
        return BatchFeature(data)
