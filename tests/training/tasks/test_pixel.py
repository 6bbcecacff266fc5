"""Stages 2 and 3: what moves and what does not, the codebook's upkeep, the exported average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import (
    Distance,
    changed,
    copy_of,
    loop_config,
    optimizer,
    pixel_task,
    pixels,
    take_steps,
    tiny_batch,
    tiny_feed,
    tiny_model,
)
from torch import Tensor

from semhitok.tokenizers import SemHiTokModel
from semhitok.training.loop import train
from semhitok.training.state import TrainState
from semhitok.training.task import TrainingError

PIXEL_PARTS = ("pixel_encoder.", "pixel_quantizer.", "pixel_decoder.")


def error(model: SemHiTokModel) -> float:
    """L1 on other images than those of training, by the model's public path."""
    images = pixels(16, seed=77)
    return float((model.decode(model.encode(images).ids) - images).abs().mean())


def test_learns_to_reconstruct():
    model = tiny_model()
    before = error(model)
    metrics = take_steps(pixel_task(model, fresh_codebook=True, adversarial_weight=0.0), tiny_feed(), 60)
    assert metrics[-1]["loss/l1"] < 0.7 * metrics[0]["loss/l1"]
    assert metrics[-1]["psnr"] > metrics[0]["psnr"] + 3
    assert error(model) < 0.8 * before


@pytest.mark.parametrize("concat", ["dim", "length", "none"])
@pytest.mark.parametrize("fresh_codebook", [True, False])
def test_moves_the_pixel_branch_alone_and_all_of_it(concat: str, fresh_codebook: bool):
    model = tiny_model(concat=concat)
    before, semantic_ids = copy_of(model), model.encode(pixels(50, seed=5)).semantic_ids
    task = pixel_task(model, fresh_codebook=fresh_codebook, revive_below=0.9)
    metrics = take_steps(task, tiny_feed(), 12)
    assert any(step.get("revived") for step in metrics)
    assert changed(before, model) == {name for name in before if name.startswith(PIXEL_PARTS)}
    assert not any(parameter.requires_grad for parameter in model.semantic.parameters())
    assert not any(module.training for module in (*model.teacher.modules(), *model.semantic.modules()))
    assert torch.equal(model.encode(pixels(50, seed=5)).semantic_ids, semantic_ids)


def test_stage_3_moves_the_decoder_alone_and_no_id():
    model = tiny_model()
    before, ids = copy_of(model), model.encode(pixels(50, seed=5)).ids
    metrics = take_steps(pixel_task(model, decoder_only=True, fresh_codebook=True), tiny_feed(), 12)
    assert changed(before, model) == {name for name in before if name.startswith("pixel_decoder.")}
    assert torch.equal(model.encode(pixels(50, seed=5)).ids, ids)
    assert not any("revived" in step or "loss/commitment" in step for step in metrics)
    assert metrics[2]["usage"] > 0


@pytest.mark.parametrize(("initialise_step", "steps"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 6), (99, 6)])
def test_subcodebooks_are_set_from_the_vectors_of_all_steps_up_to_then(
    monkeypatch: pytest.MonkeyPatch, initialise_step: int, steps: int
):
    """Also where an interval of ``revive_every`` = 3 steps ends in between, or right there as in the paper's recipes.

    A run that is shorter than the recipe foresaw waits for a quarter of its steps.
    """
    task, seen = pixel_task(fresh_codebook=True, initialise_step=initialise_step), []
    initialise = task.model.pixel_quantizer.initialise

    def spy(z_ND: Tensor, semantic_ids_N: Tensor, **options: Any) -> None:
        seen.append((len(z_ND), len(semantic_ids_N)))
        initialise(z_ND, semantic_ids_N, **options)

    monkeypatch.setattr(task.model.pixel_quantizer, "initialise", spy)
    take_steps(task, tiny_feed(), 24, accumulation=2)
    assert seen == [(steps * 8 * 16, steps * 8 * 16)]


def test_trained_subcodebooks_are_not_set_anew(monkeypatch: pytest.MonkeyPatch):
    for task in (pixel_task(), pixel_task(fresh_codebook=True, decoder_only=True)):
        monkeypatch.setattr(task.model.pixel_quantizer, "initialise", lambda *arguments, **options: pytest.fail("set"))
        take_steps(task, tiny_feed(), 5)


def test_usage_is_that_of_the_interval_over_joint_ids():
    model = tiny_model()
    task = pixel_task(model, decoder_only=True, revive_every=2)
    metrics = take_steps(task, tiny_feed(), 4)
    ids = model.encode(torch.cat([tiny_batch(start=start).pixel_values() for start in (16, 24)])).ids
    assert metrics[3]["usage"] == pytest.approx(len(ids.unique()) / 64)
    assert ["usage" in step for step in metrics] == [False, True, False, True]


def test_cached_semantic_ids_stand_for_stage_1():
    model, feed = tiny_model(), tiny_feed()
    batch = next(feed.batches(0, 24))
    ids = torch.empty(24, 1, 16, dtype=torch.int32)
    ids[batch.indices_B, 0] = model.encode(batch.pixel_values()).semantic_ids.int()
    cached, plain = pixel_task(tiny_model()), pixel_task(tiny_model())
    take_steps(plain, feed, 3)
    cached.model.encode_semantic = None  # must not be asked
    take_steps(cached, tiny_feed(extras={"semantic_ids": ids.numpy()}), 3)
    assert not changed(copy_of(plain.trained), cached.trained)


def test_the_weight_average_is_what_is_exported(tmp_path: Path):
    model = tiny_model()
    task = pixel_task(model, average_decay=0.5, revive_until=0.0)
    before, average, state = copy_of(model), {}, TrainState(total_steps=12)
    for count in range(6):
        take_steps(task, tiny_feed(), 1, state=state)
        decay = min(0.5, (count + 2) / (count + 11))  # the n-th update, n from 1: (1 + n) / (10 + n)
        for name, tensor in copy_of(task.trained).items():
            average[name] = tensor if count == 0 else decay * average[name] + (1 - decay) * tensor
    training = copy_of(model)
    task.export(tmp_path)
    assert not changed(training, model), "the weights in training must be put back"
    exported = SemHiTokModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in exported.items():
        if name.startswith(PIXEL_PARTS):
            torch.testing.assert_close(tensor, average[name], atol=1e-6, rtol=1e-5, msg=name)
        else:
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(exported["pixel_decoder.project_in.weight"], training["pixel_decoder.project_in.weight"])


def test_the_codebook_is_not_decayed():
    task = pixel_task()
    for group in task.optimizer.param_groups:
        holds = any(parameter is task.model.pixel_quantizer.codebook_KmD for parameter in group["params"])
        assert (group["weight_decay"] == 0) or not holds
    assert sum(len(group["params"]) for group in task.optimizer.param_groups) == len(list(task.trained.parameters()))
    assert {group["weight_decay"] for group in task.optimizer.param_groups} == {0.0, 0.05}


def test_a_preview_shows_what_the_pixel_branch_sees_and_changes_nothing():
    model = tiny_model()
    task = pixel_task(model)
    before = copy_of(model)
    originals, reconstructions = task.preview(tiny_batch())
    assert torch.equal(originals, tiny_batch().pixel_values())
    assert torch.equal(reconstructions, model.decode(model.encode(originals).ids))
    assert not changed(before, model)
    assert task.maintainer.usage.counts.sum() == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bf16_trains_and_keeps_weights_and_codebooks_in_fp32():
    model = tiny_model()
    task = pixel_task(
        model,
        precision="bf16",
        fresh_codebook=True,
        perceptual=Distance(),
        perceptual_weight=0.1,
        adversarial_start=20,
        optimizer=optimizer(),
    )
    metrics = take_steps(task, tiny_feed(), 30)
    assert metrics[-1]["loss/l1"] < 0.8 * metrics[0]["loss/l1"]
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert task.preview(tiny_batch())[1].dtype == torch.float32


def test_describes_itself():
    assert pixel_task().describe().startswith("stage pixel: 0.0")
    assert pixel_task(decoder_only=True).describe().startswith("stage decoder: 0.0")
    assert pixel_task().describe().endswith("vocabulary 64")


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="perceptual_weight is above 0 but no perceptual network was given"):
        pixel_task(perceptual_weight=1.0)
    with pytest.raises(ValueError, match="cannot be trained in a model loaded with encoder=False"):
        pixel_task(tiny_model(encoder=False))
    with pytest.raises(ValueError, match=r"initialise_step must be at least 1, .* got 0"):
        pixel_task(fresh_codebook=True, initialise_step=0)
    wrong = torch.zeros(24, 1, 9, dtype=torch.int32).numpy()
    with pytest.raises(ValueError, match=r"semantic ids must have shape \(8, 16\)"):
        take_steps(pixel_task(), tiny_feed(extras={"semantic_ids": wrong}), 1)


def test_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path):
    task = pixel_task(perceptual=Distance(broken_at=6), perceptual_weight=1.0)
    with pytest.raises(TrainingError, match=r"^.*loss.* is not finite in step 6 \(.*checkpoint: step 4\)") as caught:
        train(task, tiny_feed(), loop_config(), tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    tensors = load_file(tmp_path / "checkpoints" / "step_00000004" / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert torch.equal(load_file(tmp_path / "nan_batch.safetensors")["images"], tiny_batch(start=40).images_BCHW)
    assert not (tmp_path / "model").exists()


def test_a_teacher_in_bf16_finds_nearly_the_same_codes():
    """Only the teacher is rounded; whatever follows is what it is with features of the same values."""
    model, batch = tiny_model(), next(tiny_feed().batches(0, 8))
    exact = pixel_task(model)._semantic_ids(batch.pixel_values())
    assert torch.equal(exact, model.encode_semantic(batch.pixel_values()).ids)
    found = pixel_task(model, teacher_precision="bf16")._semantic_ids(batch.pixel_values())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.teacher_features(batch.pixel_values()).float()
    with torch.no_grad():
        assert torch.equal(found, model.semantic.quantize(features).ids)
    assert (found == exact).float().mean() > 0.8
    assert not torch.equal(features, model.teacher_features(batch.pixel_values()))
