"""Tokenizers as graphs: ONNX files and programs of torch.export against the model they come from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import SIZE, pixels, tiny_model, tower_config
from tests.tiny_unitok import tiny_unitok
from tests.tiny_vit import tiny_vit
from torch import nn

from semhitok.cli import main
from semhitok.export.agreement import Agreement, compare, synthetic_images
from semhitok.export.graphs import Encoder, graph_metadata, trace
from semhitok.export.programs import export_programs
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

MODELS = {
    "semhitok": tiny_model,
    "sub-codebooks of different sizes": lambda: tiny_model(subcodebook_sizes=[1, 2, 3, 4] * 4),
    "teacher at half the size": lambda: tiny_model(
        teacher_config=TeacherConfig(tower_config(SIZE // 2, 4), image_size=SIZE // 2)
    ),
    "unitok": tiny_unitok,
    "two codebooks": lambda: tiny_vit("fqgan"),
    "one index": lambda: tiny_vit("tokenflow"),
}
IMAGES = pixels(5, seed=4)


@pytest.fixture(scope="module", autouse=True)
def _needs():
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")


def random_ids(model, count: int) -> torch.Tensor:
    shape = (count, model.num_tokens, *([model.codes_per_token] if model.encode(IMAGES[:1]).ids.ndim == 3 else []))
    return torch.randint(model.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_a_traced_tokenizer_gives_its_ids_and_pixels_for_any_number_of_images(name):
    model = MODELS[name]().eval()
    programs = trace(model)
    for count in (1, 2, 5):
        assert torch.equal(programs["encoder"].module()(IMAGES[:count]), model.encode(IMAGES[:count]).ids)
        ids = random_ids(model, count)
        torch.testing.assert_close(programs["decoder"].module()(ids), model.decode(ids), rtol=0, atol=1e-5)
