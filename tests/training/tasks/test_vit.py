"""Training of the systems of the comparison: loss terms by hand, what is trained, maintenance, resumption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import Distance, changed, copy_of, take_steps, tiny_batch, tiny_feed
from tests.tiny_vit import SYSTEMS, tiny_vit, tiny_vit_recipe

from semhitok.data.feed import MemoryFeed
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerModel
from semhitok.training.state import TrainState
from semhitok.training.tasks.semantic import FEATURES
from semhitok.training.tasks.vit import ViTTask
from semhitok.training.tasks.vit_config import ViTTrainingConfig


def features(count: int = 24) -> np.ndarray:
    """(count,1,16 tokens,16 channels) as if cached."""
    return np.random.default_rng(0).standard_normal((count, 1, 16, 16)).astype(np.float16)


def feed() -> MemoryFeed:
    return tiny_feed(extras={FEATURES: features()})


def config_of(system: str, **changes: Any) -> ViTTrainingConfig:
    return replace(tiny_vit_recipe(system).reconstruction.task, **changes)


def task_of(system: str, model: ViTTokenizerModel | None = None, **changes: Any) -> ViTTask:
    return ViTTask(model or tiny_vit(system), config_of(system, **changes))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_loss_is_weighted_as_the_recipe_says(system: str):
    model = tiny_vit(system)
    task = task_of(system, model, l1_weight=0.7, l2_weight=0.3)
    batch = tiny_batch(extras={FEATURES: features()})
    known = batch.extras[FEATURES].float()
    with torch.no_grad():
        output = model(batch.pixel_values(), known)
        error = output.reconstruction - batch.pixel_values()
        expected = 0.7 * error.abs().mean() + 0.3 * error.square().mean()
        for name, weight in task.config.quantizer_weights.items():
            expected = expected + weight * output.losses[name]
        if task.config.distills:
            predicted = model.predict_features(output.codes, (4, 4))
            expected = expected + (predicted - known).abs().mean()
            cosine = (predicted * known).sum(-1) / predicted.norm(dim=-1) / known.norm(dim=-1)
            expected = expected + (1 - cosine).mean()
    metrics = task.step([batch], TrainState(total_steps=10))
    torch.testing.assert_close(torch.as_tensor(metrics["loss"]), expected)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_few_steps_train_it_and_leave_the_teacher_alone(system: str):
    model = tiny_vit(system)
    before = copy_of(model)
    losses = [entry["loss"] for entry in take_steps(task_of(system, model), feed(), 12)]
    assert all(np.isfinite(losses))
    moved = changed(before, model)
    trained = {"encoder", "decoder"} | ({"semantic_input"} if model.teacher is not None else set())
    trained |= {"semantic_decoder"} if config_of(system).distills else set()
    trained |= {"quantizer"} if model.quantizer.codebooks else set()
    assert {name.split(".")[0] for name in moved} == trained
    if system in ("simvq", "vqgan-lc"):
        assert "quantizer.table_KT" not in moved


def test_the_second_stage_trains_the_semantic_decoder_alone():
    model = tiny_vit("toklip")
    before = copy_of(model)
    later = tiny_vit_recipe("toklip").understanding
    assert later is not None
    found = take_steps(ViTTask(model, later.task), feed(), 6)
    assert found[-1]["loss"] < found[0]["loss"]
    moved = changed(before, model)
    assert moved
    assert {name.split(".")[0] for name in moved} == {"semantic_decoder"}
    assert "loss/l1" not in found[0]


def test_perceptual_and_adversarial_losses_take_part():
    model = tiny_vit("vqgan")
    config = config_of(
        "vqgan", perceptual_weight=0.5, adversarial_weight=0.1, adversarial_start=2, discriminator_channels=8
    )
    task = ViTTask(model, config, perceptual=Distance())
    found = take_steps(task, feed(), 4)
    assert "loss/generator" not in found[1]
    assert {"loss/perceptual", "loss/generator", "loss/discriminator"} <= found[2].keys()


@pytest.mark.parametrize("system", ["tokenflow", "ibq", "rqvae"])
def test_a_resumed_run_is_bit_identical(system: str):
    whole, state = task_of(system), TrainState(total_steps=8)
    take_steps(whole, feed(), 8, state=state)
    first, state = task_of(system), TrainState(total_steps=8)
    take_steps(first, feed(), 4, state=state)
    resumed = task_of(system)
    resumed.load_state_dict(first.state_dict())
    take_steps(resumed, feed(), 4, state=state)
    assert changed(copy_of(whole.model), resumed.model) == set()
    assert changed(copy_of(whole.average.module), resumed.average.module) == set()


def test_what_is_missing_is_said():
    with pytest.raises(
        ValueError, match=r"losses of quantizer lfq, which are commitment, token_entropy, diversity, but .* codebook"
    ):
        task_of("lfq", quantizer_weights={"codebook": 1.0})
    with pytest.raises(ValueError, match="no perceptual network was given"):
        task_of("vqgan", perceptual_weight=1.0)
    with pytest.raises(ValueError, match="the model has no semantic decoder"):
        task_of("vqgan", cosine_weight=1.0)
    with pytest.raises(ValueError, match="encoder=False cannot be trained"):
        task_of("vqgan", tiny_vit("vqgan", encoder=False))
    with pytest.raises(ValueError, match="all 0, one of them must be above 0"):
        config_of("vqgan", l1_weight=0.0)
    with pytest.raises(ValueError, match="cosine_weight or feature_weight must be above 0"):
        config_of("vqgan", semantic_only=True)
