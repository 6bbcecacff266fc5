"""What --model and CHECKPOINT take: folders, runs; what is wrong with others is one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from tests.mllm.tiny_mllm import image_tokenizer, mllm, processor
from tests.tiny import tiny_model

from semhitok.mllm.continuous import ContinuousProjector


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def _fails(run, model, said) -> None:
    outcome = run("inspect", model)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


def test_damaged_weights(run, copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    _fails(run, copy, f"the checkpoint {copy} is damaged")


def test_weights_that_do_not_fit(run, copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["pixel_quantizer.codebook_KmD"]
    tensors["surplus"] = tensors["pixel_encoder.project_out.weight"].clone()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    _fails(run, copy, "missing keys: pixel_quantizer.codebook_KmD; unexpected keys: surplus")


def test_broken_configuration(run, copy):
    (copy / "config.json").write_text('{"model_type": ')
    _fails(run, copy, f"the checkpoint {copy} is damaged")


def test_contradictory_configuration(run, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"encoder_heads": 3}))
    _fails(run, copy, "encoder_width 16 must split into encoder_heads 3")


def test_another_class_and_no_checkpoint(run, copy, tmp_path):
    (copy / "config.json").write_text('{"model_type": "vit"}')
    _fails(run, copy, "holds a model of type 'vit', expected 'semhitok' or 'unitok'")
    (tmp_path / "empty").mkdir()
    _fails(run, tmp_path / "empty", "is not a checkpoint: it has no config.json")
    _fails(run, tmp_path / "nosuch", f"no checkpoint at {tmp_path / 'nosuch'}")


@pytest.mark.parametrize("device", ["gpu", "cuda:7", "cpu:", "7", "mps", "meta"])
@pytest.mark.parametrize("command", ["encode", "train"])
def test_devices_that_are_not_there(run, checkpoint, pictures, tmp_path, device, command):
    train = ("train", "nano", "--data", pictures, "--out", tmp_path / "run")
    encode = ("encode", pictures, "--model", checkpoint)
    outcome = run(*(train if command == "train" else encode), "--device", device)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert device in outcome.err
    assert "cpu" in outcome.err


def test_a_run_stands_for_the_model_of_its_last_finished_stage(run, tmp_path):
    stages = {"semantic": ["semantic"], "pixel": ["semantic", "pixel"], "pixel-finetune": ["semantic", "pixel"]}
    for stage, done in stages.items():
        tiny_model(stages=done, subcodebook_size=len(stage)).save_pretrained(tmp_path / "run" / stage / "model")
    facts = json.loads(run("inspect", tmp_path / "run", "--json").out)
    assert facts["subcodebook_size"] == len("pixel")
    assert facts["stages"] == ["semantic", "pixel"]


def test_inspect_shows_sizes_and_origin(run, tmp_path):
    provenance = {"licence": "apache-2.0", "semantic": {"steps": 12}, "sources": ["one (MIT)", "two (CC0)"]}
    tiny_model(stages=["semantic"], provenance=provenance).save_pretrained(tmp_path / "m")
    text = run("inspect", tmp_path / "m").out
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["tokens", "16"] in lines
    assert ["licence", "apache-2.0"] in lines
    assert ["steps", "12"] in lines
    assert ["two", "(CC0)"] in lines
    facts = json.loads(run("inspect", tmp_path / "m", "--json").out)
    assert facts["vocab_size"] == 64
    assert facts["provenance"] == provenance
    assert facts["parameters"]["all"] == sum(p.numel() for p in tiny_model().parameters())


@pytest.mark.parametrize("run_folder", [False, True])
def test_inspect_knows_language_models(run, tmp_path, run_folder):
    model, place = mllm(), tmp_path / ("run/sft/model" if run_folder else "m")
    model.config.stages, model.config.provenance = ["pretrain", "sft"], {"licence": "apache-2.0"}
    model.save_pretrained(place)
    processor(model).save_pretrained(place)
    facts = json.loads(run("inspect", tmp_path / ("run" if run_folder else "m"), "--json").out)
    assert (facts["type"], facts["stages"]) == ("semhitok_mllm", ["pretrain", "sft"])
    assert (facts["text_ids"], facts["visual_ids"]) == (model.vocabulary.text_size, model.vocabulary.visual_size)
    assert facts["parameters"]["all"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["image_tokenizer"]["tokens"] == facts["tokens_of_an_image"] == model.vocabulary.image_tokens
    assert facts["provenance"] == {"licence": "apache-2.0"}


def test_inspect_knows_continuous_features(run, tmp_path):
    model = mllm(tokenizer=image_tokenizer())
    projector = ContinuousProjector.for_model(model)
    for part in (model, processor(model)):
        part.save_pretrained(tmp_path)
    projector.save(tmp_path)
    facts = json.loads(run("inspect", tmp_path, "--json").out)
    assert facts["adapter"] == "continuous"
    assert facts["parameters"]["projector"] == sum(parameter.numel() for parameter in projector.parameters())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_called_like_a_bundled_checkpoint_does_not_hide_it(run, checkpoint, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    expected = run("inspect", "nano").out
    (tmp_path / "nano").touch() if kind == "file" else (tmp_path / "nano" / "model").mkdir(parents=True)
    outcome = run("inspect", "nano")
    assert (outcome.code, outcome.out) == (0, expected)
    shutil.rmtree(tmp_path / "nano", ignore_errors=True)
    if kind == "folder":  # a checkpoint of one's own takes precedence
        shutil.copytree(checkpoint, tmp_path / "nano")
        assert run("inspect", "nano").out == run("inspect", checkpoint).out != expected
