"""A tiny tokenizer exported as ONNX once for all tests that need one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tests.tiny import pixels, tiny_model

from semhitok import SemHiTokModel
from semhitok.export.agreement import Agreement
from semhitok.export.checkpoint import ExportedCheckpoint
from semhitok.export.onnx_files import export_onnx

_folder = tempfile.TemporaryDirectory(prefix="semhitok-tests-")


@dataclass(frozen=True)
class Exported:
    model: SemHiTokModel
    written: ExportedCheckpoint
    agreements: dict[str, Agreement]


@cache
def tiny_onnx() -> Exported:
    """Its sub-codebooks have different sizes, and the weights of its decoder are exactly bf16."""
    model = tiny_model(subcodebook_sizes=[1, 2, 3, 4] * 4, decoder_width=64).eval()
    with torch.no_grad():
        for parameter in model.pixel_decoder.parameters():
            parameter.copy_(parameter.bfloat16())
    out = Path(_folder.name) / "onnx"
    return Exported(model, *export_onnx(model, out, name="tiny", images=pixels(20, seed=6), licence="MIT"))
