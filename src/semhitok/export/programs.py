"""A tokenizer as two programs of ``torch.export``, for torch without this package and for AOTInductor (docs/export.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semhitok.export.agreement import Agreement, Run, compare
from semhitok.export.checkpoint import ExportedCheckpoint, check_folder
from semhitok.export.graphs import SIDES, graph_metadata, quietly, trace
from semhitok.storage.atomic import atomic_directory, write_text
from semhitok.tokenizers.protocol import Tokenizer

METADATA = "metadata.json"
FILES = frozenset({METADATA, *(f"{side}.pt2" for side in SIDES)})


def export_programs(
    model: Tokenizer, folder: Path, *, name: str, images: Tensor, licence: str | None = None
) -> tuple[ExportedCheckpoint, dict[str, Agreement]]:
    """Write ``encoder.pt2`` and ``decoder.pt2``, which ``torch.export.load`` reads, with a ``metadata.json``.

    Arguments, result and errors as in ``export_onnx``, in fp32 only; no package beside torch is needed.
    """
    check_folder(folder, FILES)
    metadata = graph_metadata(model, name, licence)
    programs = trace(model)
    with atomic_directory(folder) as unfinished, quietly():
        for side, program in programs.items():
            torch.export.save(program, unfinished / f"{side}.pt2", extra_files={METADATA: json.dumps(metadata)})
        encode, decode = (_program(unfinished / f"{side}.pt2") for side in SIDES)
        agreement = compare(model, encode, decode, images)
        agreement.check("the exported program")
        write_text(
            unfinished / METADATA, json.dumps(metadata | {"agreement": {"fp32": agreement.as_json()}}, indent=1) + "\n"
        )
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return ExportedCheckpoint(folder, sizes), {"fp32": agreement}


def _program(path: Path) -> Run:
    loaded = torch.export.load(path).module()

    def run(values: np.ndarray) -> np.ndarray:
        return loaded(torch.from_numpy(values)).numpy()

    return run
