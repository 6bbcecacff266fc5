"""Compiled blocks: no graph breaks in any task, and generation afterwards compiles nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import image_tokenizer, mllm, processor
from tests.tiny import optimizer, pixel_task, semantic_config, take_steps, tiny_feed, tiny_model
from tests.tiny_unitok_training import captioned_feed, unitok_task
from tests.training.tasks.language_feed import feed
from torch._dynamo.utils import counters

from semhitok.data.feed import Feed
from semhitok.training.compilation import compile_blocks, has_compiled_blocks
from semhitok.training.task import Task
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.semantic import SemanticTask


class Graphs:
    """A backend that counts the graphs and runs them as they are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def language(scenes: Path) -> tuple[Task, Feed, Any]:
    model = mllm(tokenizer=image_tokenizer())
    task = LanguageTask(model, LanguageConfig(optimizer=optimizer(), precision="fp32"), processor=processor(model))
    return task, feed(model, scenes), model.language_model


@pytest.mark.parametrize("kind", ["semantic", "pixel", "unitok", "language"])
def test_blocks_have_no_graph_breaks(kind: str, tmp_path: Path):
    if kind == "language":
        task, batches, blocks = language(write_scenes(tmp_path / "scenes", 24))
    elif kind == "unitok":
        task, batches = unitok_task(), captioned_feed()
        blocks = task.model
    else:
        task = pixel_task() if kind == "pixel" else SemanticTask(tiny_model(), semantic_config())
        batches, blocks = tiny_feed(), task.model
    graphs = Graphs()
    assert not has_compiled_blocks(blocks)
    assert compile_blocks(blocks, backend=graphs) >= 2
    assert has_compiled_blocks(blocks)
    take_steps(task, batches, 1, batch_size=4)
    assert graphs.count
    assert dict(counters["graph_break"]) == {}


def test_generation_after_compiling_compiles_nothing(tmp_path: Path):
    task, batches, blocks = language(write_scenes(tmp_path / "scenes", 24))
    model, prompt = task.model.eval(), torch.tensor([[5, 6, 7]])
    expected = [model.generate(prompt, max_new_tokens=4), model.generate_images(prompt, guidance=3.0)]
    graphs = Graphs()
    compile_blocks(blocks, backend=graphs)
    torch.manual_seed(0)
    assert torch.equal(model.generate(prompt, max_new_tokens=4), expected[0])
    assert torch.equal(model.generate_images(prompt, guidance=3.0), expected[1])
    assert graphs.count == 0
    model.train()
    take_steps(task, batches, 1, batch_size=4)
    assert graphs.count >= 1
