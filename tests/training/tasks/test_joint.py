"""Joint training: the sum of both tasks, what moves, what reaches the semantic branch, and resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import changed, copy_of, pixel_config, pixels, semantic_config, take_steps, tiny_feed, tiny_model

from semhitok.tokenizers import SemHiTokModel
from semhitok.training.state import TrainState
from semhitok.training.tasks.joint import JointTask
from semhitok.training.tasks.joint_config import JointConfig
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask


def joint_task(model: SemHiTokModel | None = None, *, pixel_gradient: bool = True, **pixel: Any) -> JointTask:
    config = JointConfig(semantic_config(), pixel_config(**pixel), pixel_gradient=pixel_gradient)
    torch.manual_seed(0)  # the discriminator's first weights
    return JointTask(model or tiny_model(), config)


def test_moves_both_branches_and_leaves_the_teacher():
    model = tiny_model()
    before, images = copy_of(model), pixels(20, seed=5)
    semantic_ids = model.encode(images).semantic_ids
    metrics = take_steps(joint_task(model), tiny_feed(), 12)
    assert changed(before, model) == {name for name in before if not name.startswith("teacher.")}
    assert not torch.equal(model.encode(images).semantic_ids, semantic_ids), "semantic ids are not to stand still"
    assert any(step.get("revived") for step in metrics)
    assert any(step.get("semantic_revived") for step in metrics)
    assert metrics[-1]["loss"] == pytest.approx(
        metrics[-1]["loss/semantic"]
        + metrics[-1]["loss/l1"]
        + metrics[-1]["loss/codebook"]
        + 0.25 * metrics[-1]["loss/commitment"]
        + 0.1 * metrics[-1]["adaptive_weight"] * metrics[-1]["loss/generator"],
        rel=1e-4,
    )
    assert {"semantic_gradient_norm", "gradient_norm", "loss/semantic_l1", "usage", "psnr"} <= set(metrics[5])


def test_learns_both():
    model = tiny_model()
    metrics = take_steps(joint_task(model, adversarial_weight=0.0), tiny_feed(), 50)
    assert metrics[-1]["loss/l1"] < 0.75 * metrics[0]["loss/l1"]
    assert metrics[-1]["loss/semantic_cosine"] < 0.9 * metrics[0]["loss/semantic_cosine"]


def test_without_pixel_gradients_the_semantic_branch_trains_as_in_stage_1():
    """Bit for bit, although a pixel branch hangs on its ids: the two losses share no parameter."""
    joint, staged = joint_task(pixel_gradient=False), SemanticTask(tiny_model(), semantic_config())
    take_steps(joint, tiny_feed(), 8, accumulation=2)
    take_steps(staged, tiny_feed(), 8, accumulation=2)
    assert not changed(copy_of(staged.branch), joint.model.semantic)
    pulled = joint_task(pixel_gradient=True)
    take_steps(pulled, tiny_feed(), 8, accumulation=2)
    assert changed(copy_of(staged.branch), pulled.model.semantic)


def test_on_a_semantic_branch_that_stands_still_the_pixel_branch_trains_as_in_stage_2():
    still = {
        "initialise_step": 99,
        "revive_every": 99,
        "cosine_weight": 0.0,
        "l1_weight": 0.0,
        "commitment_weight": 0.0,
    }
    config = JointConfig(semantic_config(**still), pixel_config(), pixel_gradient=False)
    torch.manual_seed(0)
    joint = JointTask(tiny_model(semantic_quantizer="vanilla"), config)
    joint.semantic.optimizer.param_groups.clear()
    torch.manual_seed(0)
    staged = PixelTask(tiny_model(semantic_quantizer="vanilla"), pixel_config(), fresh_codebook=True)
    take_steps(joint, tiny_feed(), 6)
    take_steps(staged, tiny_feed(), 6)
    assert not changed(copy_of(staged.trained), joint.pixel.trained)


def test_cached_features_stand_for_the_teacher():
    model, feed = tiny_model(), tiny_feed()
    batch = next(feed.batches(0, 24))
    features = torch.empty(24, 1, 16, 16)
    features[batch.indices_B, 0] = model.teacher_features(batch.pixel_values())
    cached, plain = joint_task(), joint_task()
    cached.model.teacher_features = None  # must not be asked
    one = take_steps(cached, tiny_feed(extras={"features": features.numpy()}), 3)
    other = take_steps(plain, feed, 3)
    assert one[-1]["loss"] == pytest.approx(other[-1]["loss"], rel=1e-4)


def test_a_resumed_task_goes_on_as_if_nothing_had_happened():
    whole, halves = joint_task(), joint_task()
    state = TrainState(total_steps=10)
    expected = take_steps(whole, tiny_feed(), 10, state=TrainState(total_steps=10))
    take_steps(halves, tiny_feed(), 4, state=state)
    resumed = joint_task(tiny_model(seed=3))
    resumed.model.load_state_dict(halves.model.state_dict())
    resumed.load_state_dict(halves.state_dict())
    found = take_steps(resumed, tiny_feed(), 6, state=state)
    assert found[-1] == expected[-1]
    assert not changed(copy_of(whole.model), resumed.model)


def test_exports_averaged_pixel_and_present_semantic_weights(tmp_path: Path):
    task = joint_task()
    take_steps(task, tiny_feed(), 6)
    training = copy_of(task.model)
    task.export(tmp_path)
    exported = SemHiTokModel.from_pretrained(tmp_path)
    moved = changed(training, exported)
    assert {name.split(".")[0] for name in moved} == {"pixel_encoder", "pixel_quantizer", "pixel_decoder"}
    assert not changed(training, task.model)
    assert task.preview(next(tiny_feed().batches(0, 2)))[1].shape == (2, 3, 32, 32)
    assert task.describe().startswith("joint: semantic branch: ")


def test_a_decoder_alone_is_no_joint_training():
    with pytest.raises(ValueError, match="decoder_only set"):
        joint_task(decoder_only=True)
