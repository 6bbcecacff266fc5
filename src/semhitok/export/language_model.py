"""Export a trained unified language model as a checkpoint to share: bf16, without weights that are bundled already.

Everything but the image tokenizer is stored in bf16. A tokenizer that is bundled with the package is not written at all (see
``semhitok.mllm.shared_tokenizer``); another one stays in fp32, so that its ids are bit-identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.export.checkpoint import WEIGHTS, ExportedCheckpoint, in_bfloat16, write_checkpoint
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.shared_tokenizer import PREFIX, find_bundled
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

FILES = frozenset(
    {WEIGHTS, "config.json", "generation_config.json", "processor_config.json", "README.md"}
    | {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"}
)


def export_language_model(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    folder: Path,
    *,
    card: str,
    provenance: Mapping[str, Any],
) -> ExportedCheckpoint:
    """Write a checkpoint to share; it is loaded and compared before it is moved into place.

    Args:
        model: in fp32, with the encoder side of its tokenizer.
        processor: the model's own.
        folder: folder to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to the provenance in the model's configuration, such as ``licence``.

    Raises:
        ValueError: the model is not in fp32 or lacks the encoder side of its tokenizer, or the folder holds other things.
        WriteError: the disk is full; an earlier export is untouched.
    """
    fingerprint, shared = tokenizer_fingerprint(model.image_tokenizer), find_bundled(model.image_tokenizer)

    def stored(name: str, tensor: Tensor) -> Tensor | None:
        if name.startswith(PREFIX):
            return None if shared else tensor
        return in_bfloat16(tensor)

    def load(place: Path) -> SemHiTokForConditionalGeneration:
        """Load and check the ids: the decoder of a shared tokenizer is the bundled one's, whatever it was in training."""
        loaded = SemHiTokForConditionalGeneration.from_pretrained(place, dtype=torch.float32)
        if tokenizer_fingerprint(loaded.image_tokenizer) != fingerprint:
            raise ValueError(f"{place} does not give the image tokenizer back: the export was not kept")
        return loaded

    return write_checkpoint(
        model,
        folder,
        files=FILES,
        card=card,
        processor=processor,
        stored=stored,
        load=load,
        provenance={**getattr(model.config, "provenance", {}), **provenance, "stored": stored_as(shared)},
        shared_tokenizer=shared,
        tokenizer_fingerprint=fingerprint if shared else None,
    )


def stored_as(shared_tokenizer: str | None) -> str:
    """Description of what an export rounds and leaves out."""
    tokenizer = (
        f"the image tokenizer is the shipped {shared_tokenizer}" if shared_tokenizer else "image tokenizer in float32"
    )
    return f"language model, adapter and head in bfloat16; {tokenizer}"
