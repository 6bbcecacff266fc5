"""Images by a compiled pass with a cache of fixed size: the same tokens, compiled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.mllm.tiny_mllm import codes_mllm, image_tokenizer, mllm

from semhitok.mllm import Sampling
from semhitok.mllm.compiled_steps import CompiledSteps

PROMPTS = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 8, 9]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


@pytest.mark.parametrize("several", [False, True])
def test_the_same_images_from_one_graph(several: bool):
    torch._dynamo.reset()
    model = codes_mllm() if several else mllm("qwen3", image_tokenizer(), image_positions=True)
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = CompiledSteps(model, backend=backend)
    for prompts, mask in ((PROMPTS, MASK), (PROMPTS[:, 1:], None)):
        options: dict[str, Any] = {"guidance": 3.0, "sampling": Sampling(seed=4)}
        expected = model.generate_images(prompts, mask, **options)
        assert torch.equal(model.generate_images(prompts, mask, compiled=compiled, **options), expected)
    assert len(graphs) == 1, "neither another prompt nor another token compiles anything"


def test_two_images_at_once_have_a_cache_each():
    model = mllm(tokenizer=image_tokenizer())
    compiled = CompiledSteps(model, backend="eager")
    one, other = (model.generate_images(prompt[None], sampling=Sampling(seed=1)) for prompt in PROMPTS)
    streams = [model.stream_images(prompt[None], sampling=Sampling(seed=1), compiled=compiled) for prompt in PROMPTS]
    pairs = list(zip(*streams, strict=True))
    assert torch.equal(pairs[-1][0], one)
    assert torch.equal(pairs[-1][1], other)
