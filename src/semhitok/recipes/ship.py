"""From a finished run to a checkpoint to share: one folder, about half the bytes, loaded as any other.

The teacher and everything of stage 1 stay as they are, in fp32, so that semantic ids are bit-identical; so do the
sub-codebooks. The pixel encoder and decoder are stored in bf16: on 256 scenes that cost a ``nano`` in training 0.003 dB
and moved 4 of 10,000 joint ids, none of the semantic ones. The configuration says float32, so that loading gives fp32
everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from semhitok.recipes.recipe import STAGES
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.checkpoint import whole_folder

IN_BFLOAT16 = ("pixel_encoder.", "pixel_decoder.")
WEIGHTS = "model.safetensors"
FILES = frozenset({WEIGHTS, "config.json", "preprocessor_config.json", "README.md"})


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


def newest_model(place: Path) -> Path | None:
    """The model of the last finished stage of a run; ``place`` itself if it is a model, None if it is neither."""
    if (place / "config.json").is_file():
        return place
    for stage in reversed(STAGES):
        config = place / stage / "model" / "config.json"
        # A stage that was interrupted has a model, too; only a finished one says so.
        if config.is_file() and stage in json.loads(config.read_text(encoding="utf-8")).get("stages", []):
            return config.parent
    return None


def ship(model: SemHiTokModel, folder: Path, *, card: str, provenance: dict[str, Any]) -> Shipped:
    """Write a checkpoint to share; it is loaded and compared before it takes its place.

    Args:
        model: in fp32, with its encoder side.
        folder: to write; may hold an earlier export, which is replaced, and nothing else.
        card: Markdown of the model card.
        provenance: added to what the model's configuration says of its origin, such as ``licence``.

    Raises:
        ValueError: the model lacks its encoder side or is not in fp32, or the folder holds other things.
        CheckpointError: the disk is full; an earlier export is untouched.
    """
    if model.teacher is None:
        raise ValueError("a model without its encoder side cannot be exported: load it with encoder=True")
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("the model to export must be in float32: load it with dtype=torch.float32")
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES) if folder.is_dir() else []
    if foreign or folder.is_file():
        raise ValueError(f"{folder} holds {', '.join(foreign[:3]) or 'data'}: export to a new or empty folder")
    earlier = model.config.provenance
    model.config.provenance = {**earlier, **provenance, "stored": "pixel encoder and decoder in bfloat16"}
    try:
        with whole_folder(folder) as unfinished:
            model.save_pretrained(unfinished)
            (unfinished / "README.md").write_text(card, encoding="utf-8")
            _store_in_bfloat16(unfinished / WEIGHTS)
            _check(model, unfinished)
    finally:
        model.config.provenance = earlier
    return Shipped(folder, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def _store_in_bfloat16(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {name: _stored(name, tensor) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata=metadata)


def _stored(name: str, tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if name.startswith(IN_BFLOAT16) else tensor


def _check(model: SemHiTokModel, folder: Path) -> None:
    """What was written loads strictly, in fp32, and equals the model but for the rounding."""
    loaded = SemHiTokModel.from_pretrained(folder).state_dict()
    for name, tensor in model.state_dict().items():
        wanted = _stored(name, tensor).to(tensor.dtype)
        if loaded[name].dtype != tensor.dtype or not torch.equal(loaded[name], wanted.to(loaded[name].device)):
            raise ValueError(f"{folder} does not give {name} back as it was written: the export was not kept")
