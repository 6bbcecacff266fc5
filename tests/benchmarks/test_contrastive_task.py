"""Shapes: B images, N patches, E caption channels, F channels of the starting signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.contrastive_task import CAPTIONS, SIGNAL, ContrastiveConfig, ContrastiveTask
from transformers import SiglipVisionConfig, SiglipVisionModel

from semhitok.data.feed import Batch, MemoryFeed
from semhitok.teachers import Teacher
from semhitok.training.loop import LoopConfig, train
from semhitok.training.optim import OptimizerConfig
from semhitok.training.state import TrainState

B, N, E, F = 6, 4, 5, 7


def backbone() -> SiglipVisionModel:
    torch.manual_seed(0)
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            vision_use_head=False,
        )
    )


def task(**options: object) -> ContrastiveTask:
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=0, weight_decay=0.0, final_ratio=1.0)
    config = ContrastiveConfig(optimizer=optimizer, precision="fp32", **options)  # pyright: ignore[reportArgumentType]
    tower = backbone()
    torch.manual_seed(1)
    return ContrastiveTask(tower, config, caption_dim=E, signal_dim=F)


def feed() -> MemoryFeed:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (B, 3, 16, 16), dtype=np.uint8))
    extras = {
        CAPTIONS: random.standard_normal((B, 1, E)).astype(np.float32),
        SIGNAL: random.standard_normal((B, 1, N, F)).astype(np.float16),
    }
    return MemoryFeed(images, seed=0, extras=extras)


def batch() -> Batch:
    return next(feed().batches(0, B))


def test_losses_match_a_computation_by_hand():
    trained = task(cosine_weight=0.7, l1_weight=0.3, contrastive_weight=2.0, contrastive_from=0.0, initial_bias=-2.0)
    images = batch()
    with torch.no_grad():
        patches = trained.backbone(pixel_values=images.images_BCHW.float() / 127.5 - 1).last_hidden_state.double()
        signal_head, caption_head = (
            (head.weight.double().numpy(), head.bias.double().numpy())
            for head in (trained.signal_head, trained.caption_head)
        )
    restored = patches.numpy() @ signal_head[0].T + signal_head[1]
    signal = images.extras[SIGNAL].double().numpy()
    products = (restored * signal).sum(-1)
    cosine = np.mean(1 - products / np.linalg.norm(restored, axis=-1) / np.linalg.norm(signal, axis=-1))
    l1 = np.abs(restored - signal).mean()
    image = patches.numpy().mean(1) @ caption_head[0].T + caption_head[1]
    caption = images.extras[CAPTIONS].double().numpy()
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    caption /= np.linalg.norm(caption, axis=1, keepdims=True)
    contrastive = 0.0
    for i in range(B):
        for j in range(B):
            logit = (10 * image[i] @ caption[j] - 2) * (1 if i == j else -1)
            contrastive += np.log1p(np.exp(-logit)) / B

    metrics = trained.step([images], TrainState(total_steps=10))

    expected = {"cosine": cosine, "l1": l1, "contrastive": contrastive}
    for name, value in expected.items():
        assert float(metrics[f"loss/{name}"]) == pytest.approx(value, rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(0.7 * cosine + 0.3 * l1 + 2 * contrastive, rel=1e-4)
    nearest = (image @ caption.T).argmax(1)
    assert float(metrics["matched"]) == pytest.approx(np.mean(nearest == np.arange(B)))


def test_the_contrastive_loss_joins_at_its_share_of_the_run():
    trained, images = task(contrastive_from=0.5), batch()
    names = [set(trained.step([images], TrainState(total_steps=4, step=step))) for step in range(4)]
    assert ["loss/contrastive" in found for found in names] == [False, False, True, True]


def test_the_loss_falls_and_captions_are_found(tmp_path: Path):
    trained = task(contrastive_from=0.2)
    state = TrainState(total_steps=150)
    metrics = []
    for batch_of_step, step in zip(feed().batches(0, B), range(150), strict=False):
        state.step = step
        metrics.append({name: float(value) for name, value in trained.step([batch_of_step], state).items()})
    assert metrics[-1]["loss/cosine"] < 0.5 * metrics[0]["loss/cosine"]
    assert metrics[-1]["loss/contrastive"] < 0.5 * metrics[30]["loss/contrastive"]
    assert metrics[-1]["matched"] == 1.0


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path):
    whole, resumed = task(), task()
    config = {"batch_size": 4, "accumulation": 2, "checkpoint_every": 3, "log_every": 2}
    train(whole, feed(), LoopConfig(steps=6, **config), tmp_path / "whole")
    first = task()
    state = TrainState(total_steps=6)
    batches = feed().batches(0, 4)
    for step in range(3):
        state.step = step
        state.seed_step(0)
        first.step(next(batches).split(2), state)
    resumed.load_state_dict(first.state_dict())
    for step in range(3, 6):
        state.step = step
        state.seed_step(0)
        resumed.step(next(batches).split(2), state)
    for name, tensor in whole.trained.state_dict().items():
        assert torch.equal(tensor, resumed.trained.state_dict()[name]), name
    for name, tensor in whole.average.module.state_dict().items():
        assert torch.equal(tensor, resumed.average.module.state_dict()[name]), name


def test_the_export_is_a_teacher_with_the_averaged_weights(tmp_path: Path):
    trained, images = task(average_decay=0.9), batch()
    for step in range(5):
        trained.step([images], TrainState(total_steps=5, step=step))
    trained.export(tmp_path)
    teacher = Teacher.from_pretrained(tmp_path, layer=-1)
    tower = trained.average.module.get_submodule("backbone")
    with torch.no_grad():
        wanted = tower(pixel_values=images.pixel_values(), output_hidden_states=True).hidden_states[-1]
    assert teacher.config.image_size == 16
    torch.testing.assert_close(teacher(images.pixel_values()), wanted)
    assert not torch.equal(tower.embeddings.patch_embedding.weight, trained.backbone.embeddings.patch_embedding.weight)
