"""Words aligned: the loss by hand, who learns, that meaning is found, and exact resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import codes_mllm, image_tokenizer, mllm, processor
from tests.tiny import changed, copy_of, optimizer, take_steps
from tests.training.tasks.language_feed import feed

from semhitok.data.feed import Batch
from semhitok.data.packed_feed import INPUT_IDS, LABELS, POSITION_IDS
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.training.state import TrainState
from semhitok.training.tasks.language_config import LanguageConfig, Trained
from semhitok.training.tasks.word_alignment import GAIN, HEAD_LENGTH, RARE, SHARPNESS, WordAlignmentTask, word_scores

END = 1


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 24)


def task(model: SemHiTokForConditionalGeneration, trained: Trained = "all", **arguments) -> WordAlignmentTask:
    config = LanguageConfig(optimizer=optimizer(), trained=trained, precision="fp32")
    return WordAlignmentTask(model, config, processor=processor(model), **arguments)


def by_hand(made: WordAlignmentTask, batch: Batch) -> tuple[float, int]:
    """Sequence by sequence, image by image, word by word, in float64."""
    table = made.model.get_input_embeddings().weight.double().numpy()
    embeds = made.embedded(batch)[0].double().numpy()
    ids, labels, places = (batch.extras[name].numpy() for name in (INPUT_IDS, LABELS, POSITION_IDS))
    placeholder = made.model.vocabulary.placeholder_id
    words = sorted({int(word) for word in labels.flat if word >= 0} - {placeholder, END})
    total, images = 0.0, 0
    for row in range(len(ids)):
        starts = [*np.flatnonzero(places[row] == 0), ids.shape[1]]
        for begin, end in pairwise(starts):
            part = slice(begin, end)
            visual = embeds[row, part][ids[row, part] == placeholder]
            for tokens in visual.reshape(-1, made.model.vocabulary.image_tokens, visual.shape[1]):
                images += 1
                for word in words:
                    e = table[word] / np.linalg.norm(table[word])
                    cosines = [float(v @ e / np.linalg.norm(v)) for v in tokens]
                    strengths = [np.exp(SHARPNESS * cosine) for cosine in cosines]
                    score = GAIN * np.log(np.mean(strengths)) + RARE
                    said = word in labels[row, part]
                    total += np.log1p(np.exp(-score if said else score))
    return total, images


@pytest.mark.parametrize("several", [False, True])
@torch.no_grad()
def test_the_loss_is_what_it_is_by_hand(scenes: Path, several: bool):
    model = codes_mllm() if several else mllm(tokenizer=image_tokenizer())
    made = task(model)
    batch = next(feed(model, scenes, "answers", kinds=("caption",)).batches(0, 3))
    total, images = made._words(batch)
    expected, expected_images = by_hand(made, batch)
    assert images == expected_images > 3
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_a_word_counts_if_one_embedding_points_its_way():
    table_WD = torch.eye(4)[:3]
    visual_IND = torch.stack([torch.eye(4)[[0, 3, 3]], torch.eye(4)[[3, 3, 3]], torch.eye(4)[[1, 2, 0]]])
    scores_IW = word_scores(5 * visual_IND, table_WD)
    one = GAIN * np.log((np.exp(SHARPNESS) + 2) / 3)
    np.testing.assert_allclose(scores_IW, [[one, 0, 0], [0, 0, 0], [one, one, one]], atol=1e-5)


@pytest.mark.parametrize("trained", ["all", "adapter"])
def test_who_learns(scenes: Path, trained: Trained):
    model = mllm(tokenizer=image_tokenizer(), image_positions=True)
    before = copy_of(model)
    metrics = take_steps(task(model, trained), feed(model, scenes, "answers", kinds=("caption",)), 12, batch_size=4)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    moved = changed(before, model)
    table = {name for name in moved if not name.startswith("adapter.")}
    assert {name for name in before if name.startswith("adapter.")} <= moved
    assert table == ({"language_model.embed_tokens.weight"} if trained == "all" else set())


def exported(
    model: SemHiTokForConditionalGeneration, folder: Path, trained: Trained
) -> SemHiTokForConditionalGeneration:
    before = copy_of(model)
    task(model, trained).export(folder)
    assert changed(before, model) == set()
    return SemHiTokForConditionalGeneration.from_pretrained(folder)


@torch.no_grad()
def test_export_brings_visual_embeddings_to_the_scale_of_the_table(tmp_path: Path):
    model = mllm(tokenizer=image_tokenizer())
    for layer in model.adapter.output_layers():
        layer.weight.mul_(7)
        layer.bias.add_(3)
    ids = torch.arange(model.vocabulary.visual_size)
    before = model.embed_visual(ids)
    found = exported(model, tmp_path, "adapter")
    after, table = found.embed_visual(ids), found.get_input_embeddings().weight
    torch.testing.assert_close(after.square().mean().sqrt(), table.square().mean().sqrt(), rtol=0.02, atol=0)
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(before, after), torch.ones(len(ids)))


@torch.no_grad()
def test_the_head_of_a_new_language_model_begins_as_the_visual_embeddings(tmp_path: Path):
    model = mllm(tokenizer=image_tokenizer())
    before = model.lm_head.weight.clone()
    rows = slice(model.vocabulary.visual_begin, model.vocabulary.visual_end)
    kept = exported(model, tmp_path / "pretrained", "adapter").lm_head.weight
    assert torch.equal(kept, before)
    found = exported(model, tmp_path / "new", "all")
    visual = found.embed_visual(torch.arange(model.vocabulary.visual_size)).numpy()
    wanted = visual - visual.mean(axis=0)
    wanted *= HEAD_LENGTH / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found.lm_head.weight[rows].numpy(), wanted, atol=1e-5)
    assert torch.equal(found.lm_head.weight[: rows.start], before[: rows.start])


@torch.no_grad()
def test_a_head_of_codes_and_a_projector_are_exported_as_they_are(tmp_path: Path):
    codes = codes_mllm()
    found = exported(codes, tmp_path / "codes", "all")
    assert torch.equal(found.lm_head.weight, codes.lm_head.weight)
    assert changed(copy_of(codes.code_head), found.code_head) == set()
    model = mllm(tokenizer=image_tokenizer())
    projector = ContinuousProjector.for_model(model)
    task(model, projector=projector).export(tmp_path / "continuous")
    found = SemHiTokForConditionalGeneration.from_pretrained(tmp_path / "continuous")
    assert changed(copy_of(model), found) == set()
    assert changed(copy_of(projector), ContinuousProjector.load(tmp_path / "continuous", found)) == set()


def test_low_ranks_have_no_part_in_it():
    with pytest.raises(ValueError, match='"adapter" or "all"'):
        task(mllm(tokenizer=image_tokenizer()), "lora")


def test_continuous_features_are_aligned_too(scenes: Path):
    model = mllm(tokenizer=image_tokenizer())
    projector = ContinuousProjector.for_model(model)
    before = copy_of(projector)
    rows = feed(model, scenes, "answers", kinds=("caption",))
    metrics = take_steps(task(model, projector=projector), rows, 8, batch_size=4)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert changed(before, projector) == set(before)


def test_resume_is_exact(scenes: Path):
    def run(steps: int, made: WordAlignmentTask, state: TrainState) -> None:
        take_steps(made, feed(made.model, scenes, "answers", kinds=("caption",)), steps, batch_size=4, state=state)

    whole, part = task(mllm(tokenizer=image_tokenizer())), task(mllm(tokenizer=image_tokenizer()))
    run(6, whole, TrainState(total_steps=6))
    state = TrainState(total_steps=6)
    run(3, part, state)
    again = task(mllm(tokenizer=image_tokenizer()))
    again.load_state_dict(part.state_dict())
    run(3, again, state)
    assert changed(copy_of(whole.trained), again.trained) == set()
    assert "words.bias" in whole.state_dict()["trained"]
