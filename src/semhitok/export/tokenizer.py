"""From a finished run to a checkpoint to share: one folder, fewer bytes, loaded as any other.

SemHiTok: the teacher and everything of stage 1 stay as they are, in fp32, so that semantic ids are bit-identical; so do
the sub-codebooks. The pixel encoder and decoder are stored in bf16: on 256 scenes that cost a ``nano`` in training
0.003 dB and moved 4 of 10,000 joint ids, none of the semantic ones. UniTok: encoder, projections, codebooks and image head
stay in fp32, so that all ids and image embeddings are bit-identical; the decoder and the text tower are stored in bf16.
The configuration says float32, so that loading gives fp32 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.storage.atomic import atomic_directory
from semhitok.tokenizers import SemHiTokModel, UniTokModel
from semhitok.tokenizers.loading import Tokenizer, load_tokenizer
from semhitok.tokenizers.unitok.processing import UniTokProcessor

WEIGHTS = "model.safetensors"
FILES = frozenset(
    {WEIGHTS, "config.json", "preprocessor_config.json", "README.md"}
    | {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}  # with a text tower
)


@dataclass(frozen=True)
class Shipped:
    """What was written.

    Attributes:
        folder: the checkpoint.
        sizes: bytes by file.
    """

    folder: Path
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def ship(
    model: Tokenizer,
    folder: Path,
    *,
    card: str,
    provenance: dict[str, Any],
    processor: UniTokProcessor | None = None,
) -> Shipped:
    """Write a checkpoint to share; it is loaded and compared before it takes its place.

    Args:
        model: in fp32, with its encoder side.
        folder: to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to what the model's configuration says of its origin, such as ``licence``.
        processor: of images and texts, for a model with a text tower.

    Raises:
        ValueError: the model lacks its encoder side, is not in fp32 or has a text tower without a processor, or the folder
            holds other things.
        WriteError: the disk is full; an earlier export is untouched.
    """
    if not model.config.encoder:
        raise ValueError("a model without its encoder side cannot be exported: load it with encoder=True")
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("the model to export must be in float32: load it with dtype=torch.float32")
    if isinstance(model, UniTokModel) and model.text_model is not None and processor is None:
        raise ValueError("a model with a text tower is exported with its text tokenizer: pass its processor")
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES) if folder.is_dir() else []
    if foreign or folder.is_file():
        raise ValueError(f"{folder} holds {', '.join(foreign[:3]) or 'data'}: export to a new or empty folder")
    earlier = model.config.provenance
    model.config.provenance = {**earlier, **provenance, "stored": stored_as(model)}
    try:
        with atomic_directory(folder) as unfinished:
            model.save_pretrained(unfinished)
            if processor is not None:
                processor.save_pretrained(unfinished)
            (unfinished / "README.md").write_text(card, encoding="utf-8")
            _store_in_bfloat16(unfinished / WEIGHTS, _in_bfloat16(model))
            _check(model, unfinished)
    finally:
        model.config.provenance = earlier
    return Shipped(folder, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def stored_as(model: Tokenizer) -> str:
    """Which parts an export rounds, in words."""
    match model:
        case SemHiTokModel():
            return "pixel encoder and decoder in bfloat16"
        case UniTokModel():
            return "decoder and text tower in bfloat16" if model.text_model is not None else "decoder in bfloat16"


def _in_bfloat16(model: Tokenizer) -> tuple[str, ...]:
    """How the names of rounded tensors begin."""
    match model:
        case SemHiTokModel():
            return ("pixel_encoder.", "pixel_decoder.")
        case UniTokModel():
            return ("decoder.", "text_model.")


def _store_in_bfloat16(path: Path, rounded: tuple[str, ...]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {name: _stored(name, tensor, rounded) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata=metadata)


def _stored(name: str, tensor: Tensor, rounded: tuple[str, ...]) -> Tensor:
    return tensor.to(torch.bfloat16) if name.startswith(rounded) and tensor.is_floating_point() else tensor


def _check(model: Tokenizer, folder: Path) -> None:
    """What was written loads strictly, in fp32, and equals the model but for the rounding."""
    loaded = load_tokenizer(folder).state_dict()
    for name, tensor in model.state_dict().items():
        wanted = _stored(name, tensor, _in_bfloat16(model)).to(tensor.dtype)
        if loaded[name].dtype != tensor.dtype or not torch.equal(loaded[name], wanted.to(loaded[name].device)):
            raise ValueError(f"{folder} does not give {name} back as it was written: the export was not kept")
