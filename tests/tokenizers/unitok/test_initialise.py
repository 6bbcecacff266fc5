"""Starting from open_clip's ViTamin: trunk and text tower are its own, the rest is said to be random or left out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tests.tokenizers.unitok import released_reference as reference
from tests.tokenizers.unitok.released import TINY, random_state, vitamin_shapes
from tests.tokenizers.unitok.tiny import tiny

from semhitok.tokenizers.unitok.initialise import load_clip_weights
from semhitok.tokenizers.unitok.text import clip_text_tokenizer


@pytest.fixture(scope="module")
def state():
    return random_state(vitamin_shapes(TINY), seed=3)


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vitamin") / "model.safetensors"
    save_file(state, path)
    return path


@torch.no_grad()
def test_trunk_and_text_tower_are_the_files(state, file):
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = load_clip_weights(model, file)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = reference.encode(state, images, TINY, prefix="visual.trunk.")  # without a last norm, which ViTamin lacks
    expected = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)  # UniTok's, as it is initialised
    torch.testing.assert_close(model.encoder(images), expected, atol=1e-4, rtol=1e-4)
    texts = clip_text_tokenizer()(["a cat", "two dogs"], padding=True, return_tensors="pt")
    expected = reference.text_embedding(state, texts["input_ids"], TINY, prefix="text.")
    torch.testing.assert_close(model.text_embedding(**texts), expected, atol=1e-5, rtol=1e-4)
    after = model.state_dict()
    assert {*done.loaded, *done.random} == after.keys()
    assert not {*done.loaded} & {*done.random}
    assert all(torch.equal(before[name], after[name]) for name in done.random)
    assert not any(torch.equal(before[name], after[name]) for name in done.loaded)


def test_the_report(file):
    done = load_clip_weights(tiny(), file)
    parts = {name.split(".")[0] for name in done.random}
    assert parts == {"encoder", "project_down", "quantizer", "project_up", "decoder", "image_head", "logit_scale"}
    assert len([name for name in done.random if name.startswith("encoder.")]) == 2  # weight and bias of the last norm
    assert {*done.left_out} == {
        "visual.trunk.pos_embed",
        "visual.trunk.fc_norm.weight",
        "visual.trunk.fc_norm.bias",
        "visual.head.proj.weight",
        "logit_scale",
    }
    assert done.left_out["logit_scale"] == "the temperature starts anew"


def test_other_ways_to_save_the_same(state, file, tmp_path):
    """Weights of torch.save, text tensors at the top level, and open_clip's training state under DDP."""
    flat = {name.removeprefix("text."): tensor for name, tensor in state.items()}
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    expected = tiny()
    load_clip_weights(expected, file)
    for content in (state, flat, wrapped):
        torch.save(content, tmp_path / "file.pt")
        model = tiny()
        load_clip_weights(model, tmp_path / "file.pt")
        for name, tensor in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor)


def test_a_model_without_text_tower(file):
    model = tiny(text_config=None)
    done = load_clip_weights(model, file)
    assert {name.split(".")[0] for name in done.loaded} == {"encoder"}
    assert done.left_out["text.positional_embedding"] == "the model has no text tower"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual.trunk.blocks.1.mlp.w2.bias": None}, r"missing: visual\.trunk\.blocks\.1\.mlp\.w2\.bias$"),
        ({"text.ln_final.bias": None}, r"missing: text\.ln_final\.bias$"),
        ({"visual.trunk.blocks.2.norm1.weight": torch.ones(128)}, r"unknown: visual\.trunk\.blocks\.2\.norm1\.weight$"),
        ({"visual.trunk.cls_token": torch.ones(1, 1, 128)}, r"unknown: visual\.trunk\.cls_token$"),
        ({"text.ln_final.bias": torch.ones(31)}, r"of another shape: text\.ln_final\.bias \(31,\)$"),
        ({"visual.trunk.blocks.0.attn.qkv.bias": torch.ones(4)}, "another shape: visual.trunk.blocks.0.attn.qkv.bias"),
        (
            {"text.transformer.resblocks.0.attn.in_proj_bias": torch.ones(93)},
            "another shape: text.transformer.resblocks",
        ),
    ],
)
def test_tensors_that_do_not_fit(state, tmp_path, changes, message):
    changed = {name: tensor for name, tensor in (state | changes).items() if tensor is not None}
    save_file(changed, tmp_path / "file.safetensors")
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_clip_weights(model, tmp_path / "file.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_files_of_another_kind(tmp_path, file):
    torch.save({"visual.proj": torch.ones(2)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of ViTamin"):
        load_clip_weights(tiny(), tmp_path / "file.pt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_clip_weights(tiny(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="without its encoder side"):
        load_clip_weights(tiny(encoder=False), file)
