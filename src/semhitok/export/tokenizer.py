"""Export a trained tokenizer as a checkpoint to share. Each tokenizer declares what is rounded (``Tokenizer.rounding``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from semhitok.export.checkpoint import WEIGHTS, ExportedCheckpoint, in_bfloat16, write_checkpoint
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.protocol import Rounding, Tokenizer

FILES = frozenset(
    {WEIGHTS, "config.json", "preprocessor_config.json", "README.md"}
    | {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}  # with a text tower
)


def export_tokenizer(
    model: Tokenizer,
    folder: Path,
    *,
    card: str,
    provenance: dict[str, Any],
    processor: Any = None,
    rounding: Rounding | None = None,
) -> ExportedCheckpoint:
    """Write a checkpoint to share; it is loaded and compared before it is moved into place.

    Args:
        model: in fp32, with its encoder side.
        folder: folder to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to the provenance in the model's configuration, such as ``licence``.
        processor: prepares images and texts, for a model with a text tower.
        rounding: how the weights are stored; by default the model's own, found anew.

    Raises:
        ValueError: the model lacks its encoder side, is not in fp32 or has a text tower without a processor, or the folder
            holds other things.
        WriteError: the disk is full; an earlier export is untouched.
    """
    if not model.config.encoder:
        raise ValueError("a model without its encoder side cannot be exported: load it with encoder=True")
    if model.has_text_tower and processor is None:
        raise ValueError("a model with a text tower is exported with its text tokenizer: pass its processor")
    rounding = rounding or model.rounding

    def stored(name: str, tensor: Tensor) -> Tensor:
        return in_bfloat16(tensor) if name.startswith(rounding.tensors) else tensor

    return write_checkpoint(
        model,
        folder,
        files=FILES,
        card=card,
        processor=processor,
        stored=stored,
        load=load_tokenizer,
        provenance={**model.config.provenance, **provenance, "stored": rounding.sentence},
    )
