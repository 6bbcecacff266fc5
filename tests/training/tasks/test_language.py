"""The language task: packed equals unpacked, every part learns, what is frozen stays, resume is exact."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import codes_mllm, image_tokenizer, mllm, processor
from tests.tiny import changed, copy_of, optimizer, take_steps
from tests.training.tasks.language_feed import feed

from semhitok.data.feed import Batch
from semhitok.data.packed_feed import IMAGE_IDS, INPUT_IDS, LABELS, POSITION_IDS
from semhitok.data.record_sources import RecordTars
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig, Trained


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 24)


def task(model: SemHiTokForConditionalGeneration, trained: Trained = "all", **changes: Any) -> LanguageTask:
    config = LanguageConfig(optimizer=optimizer(), trained=trained, precision="fp32", **changes)
    return LanguageTask(model, config, processor=processor(model))


def unpacked_loss(model: SemHiTokForConditionalGeneration, batch: Batch) -> tuple[float, int]:
    """Each sequence alone through the model's own forward, images as pixels: summed loss and number of labels."""
    total, count = 0.0, 0
    for row in range(len(batch)):
        ids, labels, places = (batch.extras[name][row] for name in (INPUT_IDS, LABELS, POSITION_IDS))
        images = batch.pixel_values()[row]
        starts = [*(places == 0).nonzero()[:, 0].tolist(), len(ids)]
        for begin, end in pairwise(starts):
            part, wanted = ids[None, begin:end], labels[None, begin:end]
            labelled = int((wanted[:, 1:] != -100).sum())
            number = int((part == model.vocabulary.placeholder_id).sum()) // model.vocabulary.image_tokens
            own, images = images[:number], images[number:]
            if labelled:
                loss = model(part, labels=wanted, pixel_values=own if number else None).loss
                total, count = total + float(loss) * labelled, count + labelled
    return total, count


@pytest.mark.parametrize("kind", ["qwen2, tied", "qwen3", "llama", "several codes"])
@torch.no_grad()
def test_packed_loss_equals_unpacked_loss(scenes: Path, kind: str):
    model = codes_mllm() if kind == "several codes" else mllm(kind, image_tokenizer())
    made = task(model)
    batch = next(feed(model, scenes, kinds=("caption", "text_to_image", "chat")).batches(0, 4))
    assert ((batch.extras[POSITION_IDS] == 0).sum(dim=1) > 2).all()
    total, by_kind = made._loss(batch, made._labels(batch))
    expected, count = unpacked_loss(model, batch)
    assert count == int((batch.extras[LABELS] != -100).sum())
    assert float(total) / count == pytest.approx(expected / count, abs=1e-5)
    assert float(sum(by_kind.values())) == pytest.approx(float(total), rel=1e-5)  # type: ignore[arg-type]


def test_loss_is_logged_per_modality_and_weighs_every_token_alike(scenes: Path):
    model = mllm(tokenizer=image_tokenizer())
    (metrics,) = take_steps(task(model), feed(model, scenes), 1, batch_size=4)
    text, image = metrics["tokens/text"], metrics["tokens/image"]
    expected = (metrics["loss/text"] * text + metrics["loss/image"] * image) / (text + image)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    # In fine-tuning captions have no labels on their images.
    (metrics,) = take_steps(task(model), feed(model, scenes, "answers", kinds=("caption",)), 1, batch_size=4)
    assert metrics["tokens/image"] == 0
    assert "loss/image" not in metrics


@pytest.mark.parametrize("several", [False, True])
def test_visual_labels_count_as_much_as_their_weight_says(scenes: Path, several: bool):
    found = {}
    for weight in (1.0, 0.25):
        model = codes_mllm() if several else mllm(tokenizer=image_tokenizer())
        made = task(model, image_weight=weight)
        batch = next(feed(model, scenes).batches(0, 4))
        total, by_kind = made._loss(batch, made._labels(batch))
        total.backward()
        head = model.lm_head if model.code_head is None else model.code_head
        gradients = torch.cat([each.grad.flatten() for each in head.parameters() if each.grad is not None])
        found[weight] = float(total), {kind: float(value) for kind, value in by_kind.items()}, gradients
    (whole, parts, _), (less, same_parts, gradients) = found[1.0], found[0.25]
    assert parts == pytest.approx(same_parts)
    assert whole == pytest.approx(parts["text"] + parts["image"])
    assert less == pytest.approx(parts["text"] + 0.25 * parts["image"])
    if several:  # nothing but images moves the code head
        torch.testing.assert_close(gradients, 0.25 * found[1.0][2], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="image_weight must be above 0, got 0"):
        LanguageConfig(image_weight=0)


def test_micro_batches_change_nothing(scenes: Path):
    weights = []
    for accumulation in (1, 4):
        model = mllm(tokenizer=image_tokenizer())
        take_steps(task(model), feed(model, scenes), 1, batch_size=4, accumulation=accumulation)
        weights.append(model.lm_head.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_training_learns_text_and_images_and_leaves_the_tokenizer_alone(scenes: Path, several: bool):
    model = codes_mllm() if several else mllm(tokenizer=image_tokenizer())
    before = copy_of(model)
    found = take_steps(task(model), feed(model, scenes), 25, batch_size=4)
    moved = changed(before, model)
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"language_model", "adapter", "controls", "lm_head"} | ({"code_head"} if several else set())
    for name in ("loss/text", "loss/image"):
        assert np.mean([each[name] for each in found[-5:]]) < np.mean([each[name] for each in found[:5]]) - 0.1


def test_ids_computed_beforehand_train_alike(scenes: Path):
    tars = RecordTars([scenes], "caption")
    tokenizer = image_tokenizer()
    batch = next(feed(mllm(tokenizer=tokenizer), scenes).batches(0, 4))
    pictures = [tars.picture(index).load() for index in range(len(tars))]
    pixels = torch.stack([torch.from_numpy(np.asarray(each).copy()).permute(2, 0, 1) for each in pictures])
    ids = tokenizer.encode(pixels / 127.5 - 1).ids.numpy()
    read = next(feed(mllm(tokenizer=tokenizer), scenes, ids=ids).batches(0, 4))
    assert read.images_BCHW.shape[1] == 0
    assert batch.images_BCHW.shape[1] == batch.extras[IMAGE_IDS].shape[1] > 0
    losses = [
        float(task(mllm(tokenizer=tokenizer)).step([each], TrainState(total_steps=9))["loss"]) for each in (batch, read)
    ]
    assert losses[0] == losses[1]


def test_llavas_first_stage_moves_the_adapter_alone(scenes: Path):
    model = mllm(tokenizer=image_tokenizer(), adapter="single", image_positions=True)
    before = copy_of(model)
    take_steps(task(model, "adapter"), feed(model, scenes, "answers", kinds=("chat",)), 3, batch_size=4)
    assert {name.split(".")[0] for name in changed(before, model)} == {"adapter", "image_positions"}


def test_the_upper_bound_reads_features_in_place_of_ids(scenes: Path, tmp_path: Path):
    model = mllm(tokenizer=image_tokenizer(), image_positions=True)
    torch.manual_seed(0)
    projector = ContinuousProjector.for_model(model)
    config = LanguageConfig(optimizer=optimizer(), precision="fp32", trained="adapter")
    made = LanguageTask(model, config, processor=processor(model), projector=projector)
    before, own = copy_of(model), copy_of(projector)
    source = feed(model, scenes, "answers", kinds=("caption", "chat"))
    with torch.no_grad():
        batch = next(source.batches(0, 1))
        ids = batch.extras[INPUT_IDS]
        pixels = batch.pixel_values()[0]
        embeds = projector.embeds(model, ids, pixels)
        features = model.image_tokenizer.teacher_features(pixels)
        places = ids[0] == model.vocabulary.placeholder_id
        torch.testing.assert_close(embeds[0, places], projector(features).flatten(0, 1))
        assert embeds[0, ~places].equal(model.embed(ids)[0, ~places])
    take_steps(made, source, 3, batch_size=4)
    assert changed(before, model) == set()
    assert changed(own, projector) == set(own)
    made.export(tmp_path)
    loaded = ContinuousProjector.load(tmp_path, SemHiTokForConditionalGeneration.from_pretrained(tmp_path))
    assert loaded is not None
    assert changed(copy_of(projector), loaded) == set()
    with pytest.raises(ValueError, match="continuous features come from the tokenizer's teacher"):
        ContinuousProjector.for_model(codes_mllm())


def test_resume_is_exact(scenes: Path):
    def run(steps: int, made: LanguageTask, state: TrainState) -> None:
        take_steps(made, feed(made.model, scenes), steps, batch_size=4, state=state)

    whole, part = task(mllm(tokenizer=image_tokenizer())), task(mllm(tokenizer=image_tokenizer()))
    run(6, whole, TrainState(total_steps=6))
    state = TrainState(total_steps=6)
    run(3, part, state)
    saved = {name: value for name, value in part.state_dict().items()}
    again = task(mllm(tokenizer=image_tokenizer()))
    again.load_state_dict(saved)
    run(3, again, state)
    assert changed(copy_of(whole.model), again.model) == set()
    with pytest.raises(ValueError, match="checkpoint and run train different parameters"):
        task(mllm(tokenizer=image_tokenizer()), "adapter").load_state_dict(saved)


def test_activations_can_be_computed_twice(scenes: Path):
    found = []
    for twice in (False, True):
        model = mllm(tokenizer=image_tokenizer())
        made = task(model, checkpoint_activations=twice)
        assert model.language_model.is_gradient_checkpointing is twice
        found.append(take_steps(made, feed(model, scenes), 2, batch_size=4)[-1])
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)
    assert found[0]["gradient_norm"] == pytest.approx(found[1]["gradient_norm"], rel=1e-5)


def test_what_is_exported_computes_the_same(scenes: Path, tmp_path: Path):
    model = mllm(tokenizer=image_tokenizer())
    made = task(model)
    take_steps(made, feed(model, scenes), 2, batch_size=4)
    made.export(tmp_path)
    batch = next(feed(model, scenes).batches(0, 2))
    loaded = task(SemHiTokForConditionalGeneration.from_pretrained(tmp_path))
    with torch.no_grad():
        losses = [float(each._loss(batch, each._labels(batch))[0]) for each in (made, loaded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_without_peft_lora_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"LoRA needs peft: pip install semhitok\[mllm\]"):
        task(mllm(tokenizer=image_tokenizer()), "lora")


def test_lora_trains_low_rank_changes_and_exports_them_merged(scenes: Path, tmp_path: Path):
    pytest.importorskip("peft")
    model = mllm(tokenizer=image_tokenizer())
    plain = copy_of(model)
    torch.manual_seed(0)
    made = task(model, "lora", lora_rank=2)
    source = feed(model, scenes)
    batch = next(source.batches(0, 2))
    begun = copy_of(model)
    take_steps(made, source, 4, batch_size=4)
    moved = changed(begun, model)
    in_layers = {name for name in moved if name.startswith("language_model")}
    assert in_layers
    assert all("lora_" in name for name in in_layers)
    assert {"lm_head.weight", "controls.weight"} <= moved
    assert any(name.startswith("adapter") for name in moved)
    made.export(tmp_path)
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == plain.keys()
    weight = "language_model.layers.0.self_attn.q_proj.weight"
    assert int(torch.linalg.matrix_rank(loaded.state_dict()[weight] - plain[weight], tol=1e-5)) == 2
    again = replace(made.config, trained="all")
    other = LanguageTask(loaded, again, processor=processor(loaded))
    with torch.no_grad():
        losses = [float(each._loss(batch, each._labels(batch))[0]) for each in (made, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    # A resumed run finds its low-rank matrices again.
    torch.manual_seed(9)
    resumed = task(mllm(tokenizer=image_tokenizer()), "lora", lora_rank=2)
    resumed.load_state_dict(made.state_dict())
    assert changed(copy_of(model), resumed.model) == set()


@pytest.mark.parametrize(
    ("kind", "recompute"), [("qwen2, tied", True), ("qwen3", False), ("llama", False), ("several codes", True)]
)
def test_attending_by_sequence_changes_rounding_only(scenes: Path, kind: str, recompute: bool):
    """Losses, gradients and the weights after two steps, beside whole rows under a mask."""
    found = []
    for attention in ("masked", "sequences"):
        model = codes_mllm() if kind == "several codes" else mllm(kind, image_tokenizer())
        made = task(model, attention=attention, checkpoint_activations=recompute)
        kinds = ("caption", "text_to_image", "chat")
        metrics = take_steps(made, feed(model, scenes, kinds=kinds), 2, batch_size=4)
        assert model.language_model.config._attn_implementation == "sdpa"
        found.append((metrics, copy_of(made.trained)))
    (masked, weights), (by_sequence, others) = found
    for one, other in zip(masked, by_sequence, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    torch.testing.assert_close(others, weights, rtol=1e-3, atol=2e-4)


def test_a_window_cannot_attend_by_sequence(scenes: Path):
    model = mllm(tokenizer=image_tokenizer())
    model.language_model.config.layer_types = ["full_attention", "sliding_attention"]
    made = task(model, attention="sequences")
    with pytest.raises(ValueError, match="Qwen2Model has layers with a sliding window"):
        take_steps(made, feed(model, scenes), 1, batch_size=4)
