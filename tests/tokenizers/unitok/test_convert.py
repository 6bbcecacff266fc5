"""Released UniTok checkpoints become ours: every tensor accounted for, and the same numbers come out.

The files are generated from the published definition (``released``), and what they compute is written out as functions
(``released_reference``); both were compared with timm's ViTamin and open_clip's text tower when they were written.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tokenizers.unitok import released_reference as reference
from tests.tokenizers.unitok.released import TINY, Sizes, unitok_arguments, unitok_checkpoint, unitok_shapes
from torch.nn import functional as F

from semhitok.tokenizers.unitok import convert
from semhitok.tokenizers.unitok.configuration import UniTokConfig
from semhitok.tokenizers.unitok.convert import convert_unitok
from semhitok.tokenizers.unitok.modeling import UniTokModel
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.released_names import take, unitok_source
from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config

SIZE = 64


@pytest.fixture(scope="module")
def released():
    return unitok_checkpoint(TINY)


@pytest.fixture(scope="module")
def converted(released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    torch.save(released, folder / "tiny.pth")
    return convert_unitok(folder / "tiny.pth", folder / "out")


@pytest.fixture(scope="module")
def model(converted):
    return UniTokModel.from_pretrained(converted.folder).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def state(released):
    return released["trainer"]["unitok"]


def _save(content, folder: Path) -> Path:
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


@torch.no_grad()
def test_encoder_and_projection_down(model, state, images):
    tokens = reference.encode(state, images, TINY)
    torch.testing.assert_close(model.encoder(images), tokens, atol=1e-4, rtol=1e-4)
    features = reference.project(state, "quant_proj.", tokens)
    torch.testing.assert_close(model.project_down(tokens), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(images).features, features, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_ids_and_codes(model, state, images):
    features = torch.randn(2, 64, TINY.width, generator=torch.Generator().manual_seed(3))
    ids, codes = reference.quantize(state, features, TINY)
    assert len(ids.unique()) == TINY.entries
    assert torch.equal(model.quantizer(features).ids, ids)
    torch.testing.assert_close(model.embed(ids).pixel, codes)
    found = model.encode(images)
    assert torch.equal(found.ids, reference.quantize(state, model(images).features, TINY)[0])
    assert found.grid == (4, 4)


@torch.no_grad()
def test_projection_up_and_decoder(model, state):
    ids = torch.randint(0, TINY.entries, (2, 16, TINY.codebooks), generator=torch.Generator().manual_seed(2))
    books = [F.normalize(state[f"quantizer.codebooks.{i}.codebook.weight"], dim=-1) for i in range(TINY.codebooks)]
    codes = torch.cat([book[ids[..., i]] for i, book in enumerate(books)], dim=-1)
    tokens = reference.project(state, "post_quant_proj.", codes)
    torch.testing.assert_close(model.project_up(codes), tokens, atol=1e-4, rtol=1e-4)
    expected = reference.decode(state, tokens, (4, 4), TINY)
    torch.testing.assert_close(model.decode(ids), expected.clamp(-1, 1), atol=1e-4, rtol=1e-4)
    assert (expected.abs() < 1).float().mean() > 0.05  # not everything was clamped


@torch.no_grad()
def test_image_and_text_embeddings(model, state, images, converted):
    codes = model.embed(model.encode(images).ids).pixel
    expected = reference.image_embedding(state, reference.project(state, "post_quant_proj.", codes))
    torch.testing.assert_close(model.image_embedding(images), expected, atol=1e-4, rtol=1e-4)
    texts = UniTokProcessor.from_pretrained(converted.folder)(
        text=["a photo of a cat", "a dog on a very long red sofa"]
    )
    expected = reference.text_embedding(state, texts["input_ids"], TINY)
    torch.testing.assert_close(model.text_embedding(**texts), expected, atol=1e-5, rtol=1e-4)
    assert model.logit_scale.item() == pytest.approx(2.6593)


def test_what_is_stored_and_what_is_left_out(converted, state):
    left_out = {name for name in state if name not in converted.left_out}
    stored = load_file(converted.folder / "model.safetensors")
    assert sum(map(torch.Tensor.numel, stored.values())) == sum(state[name].numel() for name in left_out)
    assert converted.parameters == sum(state[name].numel() for name in left_out)
    assert {name.split(".")[-1] for name in converted.left_out} == {"vocab_usage", "zero_k_bias", "pos_embed"}
    assert converted.config.provenance == {"converted": {"file": "tiny.pth", "epoch": 1, "iter": 0}}
    assert converted.config.image_size == 256
    assert not list(converted.folder.parent.glob(".unfinished*"))


def test_full_size_names_and_shapes():
    """The whole layout of the released UniTok-L, on the meta device: 820,297,668 numbers find their place."""
    state = {name: torch.empty(shape, device="meta") for name, shape in unitok_shapes(Sizes())}
    config = convert._configuration(Path("file"), state, unitok_arguments(Sizes()))
    expected = UniTokConfig(text_config=text_tower_config(clip_text_tokenizer()))
    assert config.to_dict() == expected.to_dict()
    with torch.device("meta"):
        model = UniTokModel(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    dropped = ("vocab_usage", "zero_k_bias", "encoder.pos_embed")
    used = {name: tensor for name, tensor in state.items() if not name.endswith(dropped)}
    assert sum(tensor.numel() for tensor in used.values()) == 820_297_668
    taken = take(Path("file"), shapes, partial(unitok_source, num_codebooks=8), used)
    assert {name: tensor.shape for name, tensor in taken.items()} == shapes


def test_bfloat16(released, converted, tmp_path):
    convert_unitok(_save(released, tmp_path), tmp_path / "out", dtype=torch.bfloat16)
    rounded, full = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", converted.folder))
    exact = ("quantizer.", "project_down.", "project_up.", "image_head.")
    for name, tensor in full.items():
        assert torch.equal(rounded[name], tensor if name.startswith(exact) else tensor.bfloat16())
    assert UniTokModel.from_pretrained(tmp_path / "out", dtype=torch.float32).dtype == torch.float32


def test_half_precision_and_old_files(released, converted, tmp_path):
    """Files of torch before 1.6 are no archives and cannot be mapped; tensors of any precision become float32."""
    state = {name: tensor.bfloat16().float() for name, tensor in released["trainer"]["unitok"].items()}
    halves = {name: tensor.bfloat16() for name, tensor in state.items()}
    for number, tensors in enumerate((state, halves)):
        content = released | {"trainer": {"unitok": tensors}}
        torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=bool(number))
        convert_unitok(tmp_path / "file.pth", tmp_path / str(number))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "01")
    assert all(torch.equal(first[name], second[name]) for name in first)


def _without(name):
    return lambda state: state.pop(name)


def _replaced(name, tensor):
    return lambda state: state.update({name: tensor})


QUANTIZER = "quantizer.codebooks.1.codebook.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("decoder.blocks.1.attn.qkv.weight"), r"missing: decoder\.blocks\.1\.attn\.qkv\.weight$"),
        (_without(QUANTIZER), "missing: quantizer.codebooks.1.codebook.weight"),
        (_without("text_encoder.text_projection"), "missing: text_encoder.text_projection"),
        (_without("encoder.patch_embed.backbone.pool.proj.weight"), "no encoder.patch_embed.backbone.pool.proj.weight"),
        (_replaced("encoder.reg_token", torch.ones(1, 4, 128)), r"unknown: encoder\.reg_token$"),
        (_replaced("decoder.blocks.2.norm1.weight", torch.ones(128)), r"unknown: decoder\.blocks\.2\.norm1\.weight$"),
        (_replaced("fc_norm.weight", torch.ones(127)), r"of another shape: fc_norm\.weight \(127,\)$"),
        (_replaced(QUANTIZER, torch.ones(15, 8)), r"of another shape: quantizer\.codebooks\.0\.codebook\.weight"),
        (_replaced("logit_scale", torch.ones(1)), r"of another shape: logit_scale \(1,\)$"),
        (_replaced("encoder.pos_embed", torch.ones(1, 1, 128)), "encoder.pos_embed in .* is not zero"),
        (_replaced("quant_proj.attn.zero_k_bias", torch.ones(128)), "quant_proj.attn.zero_k_bias in .* is not zero"),
        (
            _replaced("text_encoder.token_embedding.weight", torch.ones(100, 32)),
            "has 100 ids, but CLIP's .* has 49408",
        ),
        (_replaced("note", "text"), "trainer.unitok in .* holds something else than tensors: note"),
    ],
)
def test_tensors_that_do_not_fit(released, tmp_path, change, message):
    state = dict(released["trainer"]["unitok"])
    change(state)
    _refused(released | {"trainer": {"unitok": state}}, message, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": {}}, r"trainer\.unitok is missing"),
        ({"trainer": {"unitok": {}}}, "trainer.unitok in .* is not a dictionary of tensors"),
        ({"trainer": torch.ones(2)}, "not a training checkpoint of UniTok: expected args, epoch, iter, trainer, found"),
        ({"model": 1}, "model is unknown"),
        ({"args": {"text_heads": 4}}, "args.img_size in .* whole number of at least 1, got None"),
        ({"args": {"img_size": 256, "text_heads": True}}, "args.text_heads in .* got True"),
        ({"args": {"img_size": 256, "weights": torch.ones(1)}}, r"settings that are not plain values: args\.weights$"),
        ({"args": [1, 2]}, "args in .* is not a dictionary of settings but of type list"),
        ({"args": argparse.Namespace(a=1)}, "asks for argparse.Namespace while it is read"),
        ({"epoch": torch.ones(1)}, "settings that are not plain values: epoch"),
        ({"epoch": os.getcwd}, "asks for posix.getcwd while it is read"),
    ],
)
def test_files_of_another_layout(released, tmp_path, change, message):
    _refused(released | change, message, tmp_path)


@pytest.mark.parametrize("content", [{}, [1], torch.ones(3), {"state_dict": {"visual.proj": torch.ones(2)}}])
def test_files_of_another_model(content, tmp_path):
    _refused(content, "is not a training checkpoint of UniTok: expected args, epoch, iter, trainer", tmp_path)


def _refused(content, message: str, folder: Path) -> None:
    """One sentence, and nothing written."""
    path = _save(content, folder)
    with pytest.raises(ValueError, match=message) as error:
        convert_unitok(path, folder / "out")
    assert "\n" not in str(error.value)
    assert [entry.name for entry in folder.iterdir()] == ["file.pth"]


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, b"PK\x03\x04" + bytes(100), b"\x80\x04N."])
def test_damaged_files(content, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match="not a file of weights"):
        convert_unitok(tmp_path / "file.pth", tmp_path / "out")


def test_a_file_that_was_cut_off(released, tmp_path):
    path = _save(released, tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is damaged"):
        convert_unitok(path, tmp_path / "out")


def test_folders_in_use_and_full_disks(released, tmp_path, monkeypatch):
    path = _save(released, tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="used is in use: convert to a new or empty folder"):
        convert_unitok(path, tmp_path / "used")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semhitok.tokenizers.unitok.processing.UniTokProcessor.save_pretrained", full)
    with pytest.raises(OSError, match=r"cannot write .*out: the disk is full"):
        convert_unitok(path, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.pth", "used"]
