"""The fingerprint covers the tensors that decide ids: every tensor is changed in turn, and ``encode`` is the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from tests.mllm.tiny_mllm import CodesConfig, CodesTokenizer
from tests.tiny import pixels, tiny_model
from tests.tiny_unitok import tiny_unitok
from torch import Tensor
from transformers import PreTrainedModel

from semhitok.teachers import EfficientNetLiteConfig, TeacherConfig
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

Make = Callable[[], PreTrainedModel]
# Layer -2 of a tower of two is read: what lies behind it says nothing.
UNREAD = ("teacher.backbone.encoder.layers.1.", "teacher.backbone.post_layernorm.", "teacher.backbone.head.")


def built_in_teacher() -> TeacherConfig:
    """Two blocks of EfficientNet-Lite0, a grid of 4 x 4."""
    return TeacherConfig(EfficientNetLiteConfig.lite0(num_blocks=2), image_size=16)


@contextmanager
def changed(tensor: Tensor, scale: float) -> Iterator[None]:
    """Another tensor for a while."""
    kept, generator = tensor.clone(), torch.Generator().manual_seed(0)
    tensor.add_(torch.randn(tensor.shape, generator=generator) * scale)
    yield
    tensor.copy_(kept)


@pytest.mark.parametrize(
    ("make", "silent"),
    [
        (tiny_model, UNREAD),
        (partial(tiny_model, semantic_quantizer="vanilla", pixel_codebook="random"), UNREAD),
        (partial(tiny_model, teacher_config=built_in_teacher()), ()),
        (partial(tiny_model, subcodebook_size=1, concat="semantic"), UNREAD),
        (partial(tiny_model, subcodebook_sizes=[1, 4] * 8, semantic_quantizer="normalized"), UNREAD),
        (tiny_unitok, ()),
        (partial(tiny_unitok, quantizer="residual", projection="linear", text=False), ()),
    ],
    ids=["paper", "vanilla-random", "built-in-teacher", "one-sub-code", "sizes", "unitok", "residual"],
)
@torch.no_grad()
def test_it_changes_with_every_tensor_that_decides_ids_and_with_no_other(make: Make, silent: tuple[str, ...]):
    model, images = make().eval(), pixels(6)
    ids, fingerprint = model.encode(images).ids, tokenizer_fingerprint(model)  # pyright: ignore
    deciding, covered = set(), set()
    for name, tensor in model.state_dict().items():
        with changed(tensor, 1.0):
            decides = not torch.equal(model.encode(images).ids, ids)  # pyright: ignore
            if tokenizer_fingerprint(model) != fingerprint:
                covered.add(name)
        if not decides:
            with changed(tensor, 30.0):
                decides = not torch.equal(model.encode(images).ids, ids)  # pyright: ignore
        if decides:
            deciding.add(name)
    assert tokenizer_fingerprint(model) == fingerprint
    assert deciding
    assert deciding <= covered
    # A bias of keys moves all logits of a softmax alike.
    idle = {name for name in covered if name.startswith(silent) or name.endswith("k_proj.bias")}
    assert covered - deciding <= idle, sorted(covered - deciding - idle)


@torch.no_grad()
def test_of_a_tokenizer_that_does_not_say_all_tensors_count():
    model = CodesTokenizer(CodesConfig())
    fingerprint = tokenizer_fingerprint(model)
    model.table_CVD[2, 4, 1] += 1
    assert tokenizer_fingerprint(model) != fingerprint
