"""Stage 1: it learns, it moves the semantic branch alone, and its terms and updates are what the paper says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.tiny import changed, copy_of, loop_config, pixels, semantic_config, take_steps, tiny_feed, tiny_model

from semhitok.tokenizers import SemHiTokModel
from semhitok.training.loop import train
from semhitok.training.state import TrainState
from semhitok.training.task import TrainingError
from semhitok.training.tasks.semantic import SemanticTask

KINDS = ["ema", "vanilla", "normalized"]


def task_of(model: SemHiTokModel | None = None, **changes: Any) -> SemanticTask:
    return SemanticTask(model or tiny_model(), semantic_config(**changes))


def distillation(model: SemHiTokModel) -> float:
    """1 - cosine plus L1 on other images than those of training, by the model's public path."""
    images = pixels(16, seed=77)
    with torch.no_grad():
        target = model.teacher_features(images)
        found = model.decode_semantic(model.encode(images).ids)
        return float(1 - F.cosine_similarity(found, target, dim=-1).mean() + (found - target).abs().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_learns_to_restore_the_teachers_features(kind: str):
    model = tiny_model(semantic_quantizer=kind)
    before = distillation(model)
    metrics = take_steps(task_of(model, revive_every=10), tiny_feed(), 40)
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    assert distillation(model) < 0.7 * before


@pytest.mark.parametrize("kind", KINDS)
def test_moves_the_semantic_branch_alone_and_all_of_it(kind: str):
    model = tiny_model(semantic_quantizer=kind)
    before = copy_of(model)
    task = task_of(model)
    assert not any(module.training for module in model.teacher.modules())
    take_steps(task, tiny_feed(), 8)
    moved = changed(before, model)
    assert moved == {name for name in before if name.startswith("semantic.")}


def test_terms_of_the_loss_by_hand():
    model = tiny_model()
    task = task_of(model, cosine_weight=0.3, l1_weight=0.7, commitment_weight=0.5, initialise_step=99)
    batch = next(tiny_feed().batches(0, 8))
    with torch.no_grad():
        target = model.teacher_features(batch.pixel_values())
        vectors = model.semantic.projection(target)
        nearest = torch.cdist(vectors.double(), model.semantic.quantizer.codebook_KD.double()).argmin(-1)
        codes = model.semantic.quantizer.codebook_KD[nearest]
        restored = model.semantic.decoder(codes, (4, 4))
    norms = restored.norm(dim=-1) * target.norm(dim=-1)
    cosine = (1 - (restored * target).sum(-1) / norms).mean()
    l1, commitment = (restored - target).abs().mean(), (vectors - codes).square().mean()
    metrics = task.step([batch], TrainState(total_steps=10))
    assert float(metrics["loss/cosine"]) == pytest.approx(float(cosine), rel=1e-4)
    assert float(metrics["loss/l1"]) == pytest.approx(float(l1), rel=1e-4)
    assert float(metrics["loss/commitment"]) == pytest.approx(float(commitment), rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(float(0.3 * cosine + 0.7 * l1 + 0.5 * commitment), rel=1e-4)


@pytest.mark.parametrize("weight", ["codebook_weight", "commitment_weight", "cosine_weight", "l1_weight"])
def test_a_weight_of_zero_takes_its_term_out(weight: str):
    rest = {name: 0.0 for name in ("codebook_weight", "commitment_weight", "cosine_weight", "l1_weight")}
    task = task_of(tiny_model(semantic_quantizer="vanilla"), **(rest | {weight: 2.0}), initialise_step=99)
    metrics = take_steps(task, tiny_feed(), 1)[0]
    assert metrics["loss"] == pytest.approx(2 * metrics[f"loss/{weight.removesuffix('_weight')}"], rel=1e-6)


def test_the_ema_codebook_follows_its_vectors_once_per_step():
    model = tiny_model(semantic_decay=0.9)
    task = task_of(model, initialise_step=99)
    counts, sums = model.semantic.quantizer.counts_K.clone(), model.semantic.quantizer.sums_KD.clone()
    batch = next(tiny_feed().batches(0, 8))
    with torch.no_grad():
        vectors = model.semantic.projection(model.teacher_features(batch.pixel_values())).flatten(0, 1)
    ids = model.encode(batch.pixel_values()).semantic_ids.flatten()
    for k in range(16):
        counts[k] = 0.9 * counts[k] + 0.1 * int((ids == k).sum())
        sums[k] = 0.9 * sums[k] + 0.1 * vectors[ids == k].sum(0)
    task.step(batch.split(4), TrainState(total_steps=10))
    torch.testing.assert_close(model.semantic.quantizer.counts_K, counts)
    torch.testing.assert_close(model.semantic.quantizer.sums_KD, sums, atol=1e-5, rtol=1e-5)
    # Laplace smoothing of 1e-5 hardly shows.
    torch.testing.assert_close(model.semantic.quantizer.codebook_KD, sums / counts[:, None], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_two_microbatches_of_8_equal_one_of_16(kind: str):
    tasks, metrics = [], []
    for accumulation in (1, 2):
        task = task_of(tiny_model(semantic_quantizer=kind))
        metrics.append(take_steps(task, tiny_feed(), 6, batch_size=16, accumulation=accumulation))
        tasks.append(task)
    for one, other in zip(*metrics, strict=True):  # AdamW would hide gradients that are twice as long
        assert other == pytest.approx(one, rel=1e-3)
    for name, tensor in tasks[0].branch.state_dict().items():
        torch.testing.assert_close(tensor, tasks[1].branch.state_dict()[name], atol=2e-4, rtol=1e-3, msg=name)


def test_cached_features_stand_for_the_teacher():
    model, feed = tiny_model(), tiny_feed()
    batch = next(feed.batches(0, 24))
    features = torch.empty(24, 1, 16, 16)
    features[batch.indices_B, 0] = model.teacher_features(batch.pixel_values())
    cached, plain = task_of(tiny_model()), task_of(tiny_model())
    cached.model.teacher = None  # must not be asked
    take_steps(cached, tiny_feed(extras={"features": features.numpy()}), 3)
    take_steps(plain, feed, 3)
    for name, tensor in plain.branch.state_dict().items():
        torch.testing.assert_close(tensor, cached.branch.state_dict()[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("initialise_step", "vectors"), [(0, 8 * 16), (2, 3 * 8 * 16), (3, 4 * 8 * 16), (5, 6 * 8 * 16)]
)
def test_the_codebook_is_set_from_the_vectors_of_all_steps_up_to_then(
    monkeypatch: pytest.MonkeyPatch, initialise_step: int, vectors: int
):
    task, seen = task_of(initialise_step=initialise_step, revive_every=3), []
    initialise = task.quantizer.initialise

    def spy(z_ND: torch.Tensor, **options: Any) -> None:
        seen.append(len(z_ND))
        initialise(z_ND, **options)

    monkeypatch.setattr(task.quantizer, "initialise", spy)
    take_steps(task, tiny_feed(), 8, accumulation=2)
    assert seen == [vectors]


@pytest.mark.parametrize(("revive_until", "alive"), [(0.5, True), (0.45, False)])
def test_dead_codes_are_revived_at_the_end_of_an_interval_until_the_end_of_revival(revive_until: float, alive: bool):
    task = task_of(revive_every=5, revive_until=revive_until, revive_below=0.01)
    state, quantizer = TrainState(total_steps=20), task.quantizer
    take_steps(task, tiny_feed(), 5, state=state)
    quantizer.codebook_KD[:3] = 100.0  # no vector can choose these
    quantizer.counts_K[:3], quantizer.sums_KD[:3] = 1.0, 100.0
    metrics = take_steps(task, tiny_feed(), 6, state=state)
    assert ["revived" in step for step in metrics] == [False] * 4 + [alive, False]
    assert metrics[4].get("revived", 0) >= (3 if alive else 0)
    assert bool((quantizer.codebook_KD[:3].abs() < 50).all()) == alive


def test_usage_is_that_of_the_interval():
    model = tiny_model()
    task = task_of(model, initialise_step=99, revive_every=4, optimizer=semantic_config().optimizer)
    feed, ids = tiny_feed(), []
    batches = feed.batches(0, 8)
    for step, batch in zip(range(8), batches, strict=False):
        ids.append(model.encode(batch.pixel_values()).semantic_ids)
        metrics = task.step([batch], TrainState(total_steps=8, step=step))
        assert ("usage" in metrics) == (step in (3, 7))
    shares = torch.bincount(torch.cat(ids[4:]).flatten(), minlength=16).double() / (4 * 8 * 16)
    assert metrics["usage"] == pytest.approx(float((shares > 0).double().mean()))
    entropy = -sum(float(share) * np.log(float(share)) for share in shares if share > 0)
    assert metrics["perplexity"] == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize("kind", KINDS)
def test_codebooks_are_not_decayed(kind: str):
    task = task_of(tiny_model(semantic_quantizer=kind))
    decayed = {
        id(parameter) for group in task.optimizer.param_groups if group["weight_decay"] for parameter in group["params"]
    }
    names = {name for name, parameter in task.branch.named_parameters() if id(parameter) in decayed}
    assert "projection.out.weight" in names
    assert not any("codebook" in name or name.endswith("bias") or "norm" in name for name in names)


def test_bf16_trains_and_keeps_weights_and_codebook_in_fp32():
    model = tiny_model()
    metrics = take_steps(task_of(model, precision="bf16"), tiny_feed(), 30)
    assert metrics[-1]["loss"] < 0.9 * metrics[0]["loss"]
    assert {tensor.dtype for tensor in model.semantic.state_dict().values()} == {torch.float32}


def test_export_writes_the_weights_in_training(tmp_path: Path):
    task = task_of()
    take_steps(task, tiny_feed(), 3)
    task.export(tmp_path)
    loaded = SemHiTokModel.from_pretrained(tmp_path)
    assert not changed(copy_of(task.model), loaded)
    assert task.preview(next(tiny_feed().batches(0, 8))) is None
    assert task.describe() == "semantic branch: 0.00M parameters, K = 16"


def test_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path):
    feed = tiny_feed()
    poisoned = int(list(zip(range(6), feed.batches(0, 4), strict=False))[5][1].indices_B[0])  # first seen in step 6
    features = tiny_model().teacher_features(next(feed.batches(0, 24)).pixel_values())[:, None].numpy().copy()
    features[poisoned, :, 3] = np.nan
    config = loop_config(batch_size=4, steps=12)
    with pytest.raises(TrainingError, match=r"^.*loss.* is not finite in step 6 \(.*checkpoint: step 4\)") as caught:
        train(task_of(), tiny_feed(extras={"features": features}), config, tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    tensors = load_file(tmp_path / "checkpoints" / "step_00000004" / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert poisoned in load_file(tmp_path / "nan_batch.safetensors")["indices"]
