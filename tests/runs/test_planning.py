"""Plans: FLOPs are those that torch counts in a real step, memory is that of a real step, and bad requests are one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import codes_mllm, image_tokenizer, mllm, processor
from tests.tiny import optimizer, pixel_task, tiny_batch, tiny_model
from tests.training.tasks.language_feed import ROW, feed

from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.runs.planning import tokenizers, trace
from semhitok.runs.planning.costs import Memory, Part, Stage
from semhitok.runs.planning.language import LanguageCosts
from semhitok.runs.planning.plan import _planned, options_for
from semhitok.runs.planning.tokenizers import TokenizerCosts
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 24)


@pytest.mark.parametrize("trained", ["all", "lora", "adapter"])
def test_flops_of_a_language_model_are_those_that_torch_counts(scenes: Path, trained: Any):
    model = mllm("qwen2, untied", image_tokenizer())
    config = LanguageConfig(optimizer=optimizer(), trained=trained, lora_rank=2)  # torch does not count addmm_ in fp32
    task = LanguageTask(model, config, processor=processor(model))
    batch = next(feed(model, scenes).batches(0, 1))
    labelled = task._labels(batch)
    visual = int((batch.extras["input_ids"] == model.vocabulary.placeholder_id).sum())

    def step() -> None:
        task._loss(batch, labelled)[0].backward()

    encoding = trace.count_flops(lambda: task._fill(batch))
    images = visual // model.vocabulary.image_tokens
    found = LanguageCosts(plain(model), config, ROW).flops(labels=len(labelled.places_T), visual=visual)
    assert sum(found.values()) + encoding == trace.count_flops(step)
    assert images * tokenizers.encoding_flops(model.config.tokenizer_config) == pytest.approx(encoding, rel=0.02)


def plain(model: SemHiTokForConditionalGeneration) -> Any:
    return type(model.config).from_dict(model.config.to_dict())


def test_a_code_head_is_counted():
    config = LanguageConfig(optimizer=optimizer(), precision="fp32")
    found = LanguageCosts(plain(codes_mllm()), config, ROW).flops(labels=ROW, visual=8)
    assert found["code head"] > 0


def test_flops_and_memory_of_a_tokenizers_stage_are_those_of_a_real_step():
    task = pixel_task()
    task.config = replace(task.config, adversarial_start=0)
    state, batch = TrainState(total_steps=9, step=5), tiny_batch(2)

    def run(task: Any, batch: Any) -> None:
        forward = task.losses(batch, state, 0)
        forward.terms["loss"].backward()

    real = trace.count_flops(lambda: run(task, batch))
    teacher_and_lookup = trace.count_flops(lambda: task.model.encode_semantic(batch.pixel_values()))
    config = tiny_model().config

    def build() -> tuple[Any, Any]:
        model = tokenizers._without_lookup(lambda: type(task.model)(config))
        made = tokenizers.PixelTask(model, replace(task.config, adversarial_weight=0.0))
        made.config = task.config
        made.adversary = tokenizers.Adversary(
            trace.without_weights(lambda: tokenizers.PatchDiscriminator(8)), tokenizers.adversarial_config(task.config)
        )
        return made, model

    costs = TokenizerCosts(build, run, tokenizers._images)
    assert teacher_and_lookup > 0
    assert 2 * costs.measured.flops == pytest.approx(real, rel=0.02)
    for each in task.model.parameters():
        each.grad = None
    tensors = tokenizers._tensors(task, task.model)
    allocated = trace.peak_bytes(lambda: run(task, batch), tensors)
    planned = costs.memory(2, 2)
    assert planned.activations + planned.gradients == pytest.approx(allocated, rel=0.1)


def test_bytes_are_counted_once_and_freed():
    kept = torch.zeros(100)

    def compute() -> None:
        for _ in range(3):
            made = torch.ones(1000)
            made.view(10, 100).add_(1)
            del made

    assert trace.peak_bytes(compute, [kept]) == 4000


def stage(**changes: Any) -> Stage:
    fields: dict[str, Any] = {
        "name": "sft",
        "steps": 1000,
        "batch_size": 256,
        "accumulation": 1,
        "unit": "rows",
        "images": 2.0,
        "parts": (Part("all", 10, 10, 2e12),),
    }
    return Stage(**(fields | changes))


def test_time_and_data_follow_from_flops():
    options = options_for(8, "H100", mfu=0.5, image_kilobytes=50)
    plan = _planned(stage(), lambda setting: Memory(1.0, 1.0, 1.0), options)
    assert plan.units_per_second == pytest.approx(8 * 989e12 * 0.5 / 2e12)
    assert plan.hours == pytest.approx(256_000 / plan.units_per_second / 3600)
    assert plan.read == 256_000 * 2 * 50_000
    assert plan.fits
    assert plan.remedy is None


def test_what_does_not_fit_is_told_what_would():
    def memory(setting: Any) -> Memory:
        rows = 256 // (setting.gpus * setting.accumulation)
        return Memory(0, 0, 0, activations=rows * 10e9 * (0.5 if setting.recompute else 1))

    plan = _planned(stage(), memory, options_for(8, "h100"))
    assert not plan.fits
    assert plan.remedy is not None
    assert plan.remedy[0].words(plan.setting, "sft", "rows") == "--sft.loop.accumulation 8"

    def heavy(setting: Any) -> Memory:
        return Memory(1e12 / setting.gpus, 0, 0)

    plan = _planned(stage(), heavy, options_for(8, "h100"))
    assert plan.remedy is not None
    assert plan.remedy[0].gpus == 16
    assert _planned(stage(), lambda setting: Memory(1e12, 0, 0), options_for(8, "h100")).remedy is None
