"""What is computed for which ids: everything in training, otherwise what is there."""

from __future__ import annotations

import pytest
import torch
from tests.mllm.tiny_mllm import TEXT_SIZE, codes_mllm, mixed_ids, mllm
from torch import Tensor

from semhitok.mllm import SemHiTokForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm()


def kinds_of_ids(model: SemHiTokForConditionalGeneration) -> dict[str, Tensor]:
    mixed = mixed_ids(model)
    visual = model.vocabulary.is_visual(mixed[0])
    marks = torch.tensor([[model.vocabulary.image_begin_id, model.vocabulary.image_end_id]])
    return {"mixed": mixed, "text": mixed[:, :3], "visual": mixed[:, visual], "marks": marks, "none": mixed[:, :0]}


@pytest.mark.parametrize("kind", ["mixed", "text", "visual", "marks", "none"])
def test_generation_embeds_as_training_does(model: SemHiTokForConditionalGeneration, kind: str):
    ids = kinds_of_ids(model)[kind]
    with torch.no_grad():
        found = model.embed(ids)
    assert torch.equal(found, model.embed(ids))
    assert found.shape == (*ids.shape, 32)


def test_several_codes_are_embedded_alike_too():
    model = codes_mllm()
    ids = torch.full((2, 3), model.vocabulary.visual_begin)
    codes = torch.randint(5, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.embed(ids, codes)
        with pytest.raises(ValueError, match="carry 3 codes with this tokenizer: pass visual_codes"):
            model.embed(ids)
    assert torch.equal(found, model.embed(ids, codes))
    torch.testing.assert_close(found[1, 2], model.embed_visual(codes[1, 2:])[0])


@pytest.mark.parametrize("kind", ["text", "visual"])
def test_every_step_of_training_uses_all_parts(kind: str):
    """Ranks that differ in their ids must not differ in what they call."""
    model = mllm()
    model.embed(kinds_of_ids(model)[kind]).sum().backward()
    parts = [model.get_input_embeddings(), model.adapter, model.controls]
    assert all(parameter.grad is not None for part in parts for parameter in part.parameters())
    called = []
    for part in parts:
        part.register_forward_hook(lambda module, *_: called.append(module))
    with torch.no_grad():
        model.train().embed(kinds_of_ids(model)[kind])
    assert {id(part) for part in called} == {id(part) for part in parts}


def test_generation_computes_nothing_for_ids_that_are_not_there(model: SemHiTokForConditionalGeneration):
    called = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, part in {"table": model.get_input_embeddings(), "adapter": model.adapter}.items()
    ]
    ids = torch.tensor([[5], [TEXT_SIZE]])
    with torch.no_grad():
        model.embed(ids[:1])
        assert called == ["table"]
        model.embed(ids[1:])
        assert called == ["table", "adapter"]
        model.embed(ids)
        assert sorted(called[2:]) == ["adapter", "table"]
    for hook in hooks:
        hook.remove()
