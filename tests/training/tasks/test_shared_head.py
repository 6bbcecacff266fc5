"""A head whose visual rows share while they are trained: the same at first, ordinary at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import codes_mllm, mllm, processor
from tests.tiny import changed, copy_of, optimizer, shake, take_steps
from tests.training.tasks.language_feed import feed

from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.training.state import TrainState
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.training.tasks.shared_head import share_head
from semhitok.training.tasks.word_alignment import WordAlignmentTask


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 24)


def task(model: SemHiTokForConditionalGeneration, kind: Any = LanguageTask, mesh: Any = None, **changes: Any) -> Any:
    config = LanguageConfig(optimizer=optimizer(), precision="fp32", share_head=True, **changes)
    return kind(model, config, processor=processor(model), mesh=mesh)


def test_rows_are_the_sum_of_what_is_their_own_and_what_they_share():
    model = mllm()
    before = model.lm_head.weight.detach().clone()
    share_head(model)
    assert torch.equal(model.lm_head.weight, before), "nothing changes at first"
    shake(model.lm_head)
    rows: Any = model.lm_head.parametrizations["weight"][0]  # pyright: ignore[reportIndexIssue]
    embedded = model.image_tokenizer.embed(torch.arange(64)[None])
    codes = torch.cat([embedded.semantic[0], embedded.pixel[0]], dim=1)
    codes = (codes - codes.mean(dim=0)) / codes.std(dim=0) / codes.shape[1] ** 0.5
    own = model.lm_head.parametrizations["weight"].original  # pyright: ignore[reportIndexIssue]
    begin, size = model.vocabulary.visual_begin, 64 // model.image_tokenizer.config.semantic_codebook_size
    groups = rows.groups_S
    for visual_id in range(64):
        assert groups[visual_id] == groups[visual_id // size * size], "one group for each semantic code"
        wanted = own[begin + visual_id] + rows.of_group[groups[visual_id]] + codes[visual_id] @ rows.of_codes
        torch.testing.assert_close(model.lm_head.weight[begin + visual_id], wanted)
    assert len(groups.unique()) == 64 // size
    assert torch.equal(model.lm_head.weight[:begin], own[:begin])
    assert torch.equal(model.lm_head.weight[begin + 64 :], own[begin + 64 :])


def test_one_label_moves_all_rows_of_its_semantic_code():
    model = mllm()
    share_head(model)
    begin = model.vocabulary.visual_begin
    model.lm_head(torch.ones(1, 32))[0, begin + 9].backward()
    rows: Any = model.lm_head.parametrizations["weight"][0]  # pyright: ignore[reportIndexIssue]
    moved = rows.of_group.grad.abs().sum(dim=1) > 0
    assert moved.sum() == 1
    assert moved[rows.groups_S[9]]


@pytest.mark.parametrize("trained", ["all", "lora"])
def test_the_export_is_an_ordinary_model_that_computes_the_same(scenes: Path, tmp_path: Path, trained: Any):
    if trained == "lora":
        pytest.importorskip("peft")
    model = mllm(image_positions=True)
    names = set(model.state_dict())
    before = copy_of(model)
    made = task(model, trained=trained)
    take_steps(made, feed(model, scenes), 3, batch_size=4)
    made.export(tmp_path)
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path)
    assert set(loaded.state_dict()) == names
    assert {"image_positions.row", "image_positions.column", "lm_head.weight"} <= changed(before, loaded)
    batch = next(feed(model, scenes).batches(0, 2))
    plain = LanguageTask(loaded, LanguageConfig(optimizer=optimizer(), precision="fp32"), processor=processor(loaded))
    with torch.no_grad():
        losses = [float(each._loss(batch, each._labels(batch))[0]) for each in (made, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_resume_is_exact(scenes: Path):
    whole, part = task(mllm()), task(mllm())
    take_steps(whole, feed(whole.model, scenes), 4, batch_size=4, state=TrainState(total_steps=4))
    state = TrainState(total_steps=4)
    take_steps(part, feed(part.model, scenes), 2, batch_size=4, state=state)
    again = task(mllm())
    again.load_state_dict(dict(part.state_dict()))
    take_steps(again, feed(again.model, scenes), 2, batch_size=4, state=state)
    assert changed(copy_of(whole.model), again.model) == set()


def test_who_cannot_share():
    with pytest.raises(ValueError, match="several codes per token the head has no rows of visual ids"):
        task(codes_mllm())
    with pytest.raises(ValueError, match="share_head trains the head: it goes with trained all or lora"):
        task(mllm(), trained="adapter")
    with pytest.raises(ValueError, match="aligning words does not use the head"):
        task(mllm(), WordAlignmentTask)
    with pytest.raises(ValueError, match="it cannot be used with --shard"):
        task(mllm(), mesh=object())
