"""Export a trained unified language model as a checkpoint to share: bf16, without weights that are bundled already.

Everything but the image tokenizer is stored in bf16. The head, most of a small model, may have one byte a weight: it is scaled by a
power of two to the range of float8 (e4m3) before it is rounded, and the final norm is divided by it, which leaves the logits as they
were but for the rounding. A tokenizer that is bundled with the package is not written at all (see
``semhitok.mllm.shared_tokenizer``); another one stays in fp32, so that its ids are bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semhitok.export.checkpoint import WEIGHTS, ExportedCheckpoint, in_bfloat16, write_checkpoint
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.shared_tokenizer import PREFIX, find_bundled
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.types import HeadPrecision

FLOAT8 = torch.float8_e4m3fn
HEAD, NORM = "lm_head.weight", "language_model.norm.weight"
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
    head: HeadPrecision = "bfloat16",
) -> ExportedCheckpoint:
    """Write a checkpoint to share; it is loaded and compared before it is moved into place.

    Args:
        model: in fp32, with the encoder side of its tokenizer.
        processor: the model's own.
        folder: folder to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to the provenance in the model's configuration, such as ``licence``.
        head: how the head is stored.

    Raises:
        ValueError: the model is not in fp32 or lacks the encoder side of its tokenizer, the folder holds other things, or the head
            cannot be stored as asked.
        WriteError: the disk is full; an earlier export is untouched.
    """
    fingerprint, shared = tokenizer_fingerprint(model.image_tokenizer), find_bundled(model.image_tokenizer)
    scale = _scale_to_float8(model) if head == "float8" else 1.0

    def stored(name: str, tensor: Tensor) -> Tensor | None:
        if name.startswith(PREFIX):
            return None if shared else tensor
        if head == "float8" and name == HEAD:
            return (tensor * scale).to(FLOAT8)
        return in_bfloat16(tensor / scale if name == NORM else tensor)

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
        provenance={**getattr(model.config, "provenance", {}), **provenance, "stored": stored_as(shared, head)},
        shared_tokenizer=shared,
        tokenizer_fingerprint=fingerprint if shared else None,
    )


def stored_as(shared_tokenizer: str | None, head: HeadPrecision = "bfloat16") -> str:
    """Description of what an export rounds and leaves out."""
    tokenizer = (
        f"the image tokenizer is the shipped {shared_tokenizer}" if shared_tokenizer else "image tokenizer in float32"
    )
    parts = "language model, adapter and head in bfloat16"
    if head == "float8":
        parts = "language model and adapter in bfloat16, head in float8 (e4m3)"
    return f"{parts}; {tokenizer}"


def _scale_to_float8(model: SemHiTokForConditionalGeneration) -> float:
    """The largest power of two by which the head fits the range of float8.

    Raises:
        ValueError: the head is not all that follows the final norm, or that norm is not a weight alone.
    """
    norm = getattr(model.language_model, "norm", None)
    if model.code_head is not None or norm is None or set(dict(norm.named_parameters())) != {"weight"}:
        raise ValueError(
            "a head in float8 must be all that follows the language model's final norm, which must have no bias: "
            "store it in bfloat16"
        )
    largest = model.lm_head.weight.detach().abs().max().item()
    return 2.0 ** math.floor(math.log2(torch.finfo(FLOAT8).max / largest)) if largest else 1.0
