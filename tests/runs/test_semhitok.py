"""All stages of a recipe on a folder of images: they do not conflict, follow each other, and say what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio
from tests.tiny import STEPS, loop_config, pixel_config, pixels, run_tiny, save_images

from semhitok.data.sources import ImageFolder
from semhitok.data.transforms import fit_image, to_float, to_uint8
from semhitok.export.tokenizer import export_tokenizer
from semhitok.recipes import Recipe
from semhitok.recipes.recipe import DataConfig
from semhitok.runs import semhitok as stages
from semhitok.runs import stage_runner
from semhitok.runs.perceptual import load_perceptual
from semhitok.runs.validation import reconstruction_check
from semhitok.tokenizers import SemHiTokModel
from semhitok.tokenizers.settings import settings_of
from semhitok.training.metrics import read_metrics
from semhitok.types import STAGES

LATER = ("pixel", "pixel-finetune", "decoder")


def model_of(directory: Path, stage: str) -> SemHiTokModel:
    return SemHiTokModel.from_pretrained(directory / stage / "model")


def weights_of(directory: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(directory / stage / "model" / "model.safetensors")


def measured(model: SemHiTokModel, source: ImageFolder, config: DataConfig) -> float:
    """What the training loop measures on validation images."""
    return reconstruction_check(model, source, config, stages._target_and_reconstruction)(None, None)["psnr"]


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("stage", LATER)
def test_stages_do_not_conflict(finished: Path, stage: str):
    """Semantic ids and features of 1,024 images are bit-identical before and after each later stage."""
    first, later = model_of(finished, "semantic"), model_of(finished, stage)
    images = torch.cat([pixels(512, seed=50), torch.rand(512, 3, 32, 32) * 2 - 1])
    before, after = first.encode(images), later.encode(images)
    assert len(before.semantic_ids.unique()) > 8
    assert torch.equal(after.semantic_ids, before.semantic_ids)
    assert torch.equal(after.ids // 4, before.semantic_ids)
    assert torch.equal(later.embed(after.ids).semantic, first.embed(before.ids).semantic)
    with torch.no_grad():
        assert torch.equal(later.teacher_features(images), first.teacher_features(images))
        quantized, expected = later.encode_semantic(images), first.encode_semantic(images)
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(later.decode_semantic(after.ids), first.decode_semantic(before.ids))


def test_each_stage_moves_its_own_part_only(finished: Path, inputs: Path):
    parts = {"pixel": "pixel_", "pixel-finetune": "pixel_", "decoder": "pixel_decoder."}
    before = "semantic"
    for stage, part in parts.items():
        one, other = weights_of(finished, before), weights_of(finished, stage)
        moved = {name for name in other if name not in one or not torch.equal(one[name], other[name])}
        assert moved == {name for name in other if name.startswith(part)}
        before = stage
    tower = load_file(inputs / "teacher" / "model.safetensors")
    trained = weights_of(finished, "decoder")
    for name, tensor in trained.items():
        if name.startswith("teacher.backbone."):
            assert torch.equal(tensor, tower[name.removeprefix("teacher.backbone.")]), name


def test_the_enhanced_decoder_changes_no_id(finished: Path):
    tuned, enhanced = model_of(finished, "pixel-finetune"), model_of(finished, "decoder")
    assert (tuned.config.decoder_layers, enhanced.config.decoder_layers) == (2, 3)
    ids = tuned.encode(pixels(64, seed=8)).ids
    assert torch.equal(enhanced.encode(pixels(64, seed=8)).ids, ids)
    assert not torch.equal(enhanced.decode(ids), tuned.decode(ids))


def test_the_result_says_what_was_done(finished: Path, recipe: Recipe):
    for count, stage in enumerate(STAGES, start=1):
        config = model_of(finished, stage).config
        assert config.stages == list(STAGES[:count])
        assert set(config.provenance) == set(STAGES[:count])
    entry = config.provenance["pixel"]
    assert {name: entry[name] for name in ("recipe", "data", "steps", "samples")} == {
        "recipe": "tiny",
        "data": "tiny images",
        "steps": STEPS,
        "samples": STEPS * 8,
    }
    stored = json.loads((finished / "pixel" / "recipe.json").read_text())
    assert stored["pixel"]["task"]["adversarial_start"] == 3
    assert stored["model"] == recipe.model
    losses = [entry["loss"] for entry in read_metrics(finished / "semantic" / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_finished_stages_are_not_trained_again(copied: Path, recipe: Recipe, inputs: Path, monkeypatch):
    monkeypatch.setattr(stage_runner, "train", lambda *arguments, **options: pytest.fail("trained again"))
    before = weights_of(copied, "decoder")
    run_tiny(recipe, inputs / "images", copied)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(copied, "decoder").items())


def test_a_stage_that_was_stopped_is_not_taken_for_done(copied: Path, recipe: Recipe, inputs: Path, finished: Path):
    for stage in ("pixel-finetune", "decoder"):
        shutil.rmtree(copied / stage)
    short = replace(recipe, pixel_finetune=replace(recipe.pixel_finetune, loop=loop_config(max_seconds=1e-6)))
    state = run_tiny(short, inputs / "images", copied)
    assert state.interrupted
    assert 0 < state.step < STEPS
    assert model_of(copied, "pixel-finetune").config.stages == ["semantic", "pixel"]
    assert not (copied / "decoder").exists()
    torch.manual_seed(99)  # what this process did before must not matter
    run_tiny(recipe, inputs / "images", copied)
    expected = weights_of(finished, "decoder")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(copied, "decoder").items())


def test_fine_tuning_may_be_left_out_and_a_stage_may_start_from_elsewhere(
    copied: Path, finished: Path, recipe: Recipe, inputs: Path, tmp_path: Path
):
    for stage in ("pixel-finetune", "decoder"):
        shutil.rmtree(copied / stage)
    shutil.rmtree(copied / "cache")  # ids from features in half precision, which the run elsewhere does not have
    run_tiny(recipe, inputs / "images", copied, ("decoder",))
    assert model_of(copied, "decoder").config.stages == ["semantic", "pixel", "decoder"]
    elsewhere = tmp_path / "elsewhere"
    run_tiny(recipe, inputs / "images", elsewhere, ("decoder",), start_from=finished / "pixel" / "model")
    one, other = weights_of(copied, "decoder"), weights_of(elsewhere, "decoder")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_stage_without_what_it_starts_from_is_one_sentence(
    finished: Path, recipe: Recipe, inputs: Path, tmp_path: Path
):
    images = inputs / "images"
    with pytest.raises(ValueError, match=f"starts from a finished stage semantic or joint, but {tmp_path} has none"):
        run_tiny(recipe, images, tmp_path, ("pixel",))
    message = (
        "stage decoder starts from a finished stage pixel-finetune or pixel or joint; stages done at .*: semantic$"
    )
    with pytest.raises(ValueError, match=message) as caught:
        run_tiny(recipe, images, tmp_path, ("decoder",), start_from=finished / "semantic" / "model")
    assert "\n" not in str(caught.value)


def test_data_that_does_not_fit_in_memory_is_streamed(recipe: Recipe, inputs: Path, finished: Path, tmp_path: Path):
    """In fp32 without cached features and ids: nearly the weights of the run in memory, whose features are halves."""
    streamed = replace(recipe, data=DataConfig(memory_limit=0, workers=0))
    run_tiny(streamed, inputs / "images", tmp_path, ("semantic",))
    assert not (tmp_path / "cache").exists()
    expected = weights_of(finished, "semantic")
    for name, tensor in weights_of(tmp_path, "semantic").items():
        if name.startswith(("semantic.projection", "semantic.decoder")):
            torch.testing.assert_close(tensor, expected[name], atol=0.01, rtol=0.01, msg=name)


def test_bad_images_are_skipped_counted_and_too_many_refused(recipe: Recipe, tmp_path: Path):
    images, lines = save_images(tmp_path / "images", 24), []
    (images / "zero.png").touch()
    (images / "cut.png").write_bytes((images / "000.png").read_bytes()[:200])
    short = replace(recipe, semantic=replace(recipe.semantic, loop=loop_config(steps=2)))
    with pytest.raises(ValueError, match="2 of 26, 5% are accepted"):
        run_tiny(short, images, tmp_path / "refused", ("semantic",), report=lines.append)
    tolerant = replace(short, data=replace(short.data, max_bad_share=0.1))
    run_tiny(tolerant, images, tmp_path / "run", ("semantic",), report=lines.append)
    text = "\n".join(lines)
    assert "24 images in memory" in text
    assert "zero.png" in text
    assert "cut.png" in text
    assert "2 bad images skipped in all" in text


def test_the_perceptual_network_says_where_its_weights_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path))
    message = "needs VGG16 weights at .*vgg16_hed.h5: run `semhitok data fetch weights`, or set perceptual_weight to 0"
    with pytest.raises(ValueError, match=message):
        load_perceptual("vgg", "conv1_2")
    with pytest.raises((ValueError, FileNotFoundError), match="vgg"):
        load_perceptual("lpips", "conv1_2")


def test_the_perceptual_network_is_asked_for_only_where_it_has_a_weight(
    copied: Path, recipe: Recipe, inputs: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(copied / "decoder")
    asked = []

    def load(kind: str, depth: str) -> torch.nn.Module:
        asked.append((kind, depth))
        raise ValueError("no weights here")

    monkeypatch.setattr(stages, "load_perceptual", load)
    weighted = replace(
        recipe,
        perceptual="lpips",
        perceptual_depth="conv2_2",
        decoder=replace(recipe.decoder, task=pixel_config(decoder_only=True, perceptual_weight=1.0)),
    )
    with pytest.raises(ValueError, match="no weights here"):
        run_tiny(weighted, inputs / "images", copied)
    assert asked == [("lpips", "conv2_2")]
    run_tiny(recipe, inputs / "images", copied)
    assert len(asked) == 1


def test_facts_of_a_checkpoint(finished: Path):
    model = model_of(finished, "decoder")
    facts = settings_of(model)
    weights = weights_of(finished, "decoder")
    buffers = {name for name, _ in model.named_buffers()}
    counts = {
        part: sum(t.numel() for name, t in weights.items() if name.startswith(f"{part}.") and name not in buffers)
        for part in ("teacher", "semantic", "pixel_encoder", "pixel_quantizer", "pixel_decoder")
    }
    assert facts["parameters"] == counts | {"all": sum(counts.values())}
    expected = {"image_size": 32, "tokens": 16, "semantic_codebook_size": 16, "subcodebook_size": 4, "vocab_size": 64}
    assert {name: facts[name] for name in expected} == expected
    assert facts["stages"] == list(STAGES)


def test_a_teacher_that_does_not_fit_stops_before_training(recipe: Recipe, inputs: Path, tmp_path: Path):
    message = "teacher's grid 6x6 does not match the token grid 4x4 of a 32x32 image with patch_size 8"
    with pytest.raises(ValueError, match=message) as caught:
        run_tiny(replace(recipe, teacher_image_size=48), inputs / "images", tmp_path)
    assert "\n" not in str(caught.value)


def test_validation_images_are_measured_at_the_end(recipe: Recipe, finished: Path, inputs: Path, tmp_path: Path):
    source = ImageFolder(inputs)
    model = finished / "pixel-finetune" / "model"
    run_tiny(recipe, inputs, tmp_path, ("decoder",), start_from=model, validation=source)
    logged = [
        line["evaluation/psnr"]
        for line in read_metrics(tmp_path / "decoder" / "metrics.jsonl")
        if "evaluation/psnr" in line
    ]
    assert len(logged) == 1
    model = model_of(tmp_path, "decoder")
    # The export holds averaged weights, the log measured those in training: close, after few steps.
    assert logged[0] == pytest.approx(measured(model, source, recipe.data), abs=1.0)


def test_the_validation_measure_is_the_mean_psnr(finished: Path, inputs: Path):
    model, source = model_of(finished, "pixel"), ImageFolder(inputs)
    scores = []
    for index in range(len(source)):
        original = to_float(to_uint8(fit_image(source.load(index).image, 32, 32)))[None]
        restored = model.decode(model.encode(original).ids)
        scores.append(peak_signal_noise_ratio(original.numpy(), restored.numpy(), data_range=2.0))
    assert measured(model, source, DataConfig()) == pytest.approx(sum(scores) / len(scores), abs=1e-3)


def test_the_first_stage_takes_no_checkpoint(recipe: Recipe, finished: Path, inputs: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="starts from the teacher"):
        run_tiny(recipe, inputs, tmp_path, start_from=finished / "pixel" / "model")


def test_weights_are_rounded_before_each_stage_so_that_an_export_keeps_all_ids(
    recipe: Recipe, inputs: Path, tmp_path: Path
):
    rounded = replace(recipe, rounded=True)
    run_tiny(rounded, inputs / "images", tmp_path / "run", stages=("semantic", "pixel", "decoder"))
    trained = weights_of(tmp_path / "run", "decoder")
    changed = [name for name, tensor in trained.items() if not torch.equal(tensor, tensor.bfloat16().float())]
    assert any(name.startswith("pixel_decoder.") for name in changed)
    assert all(name.startswith("pixel_decoder.") or "quantizer." in name for name in changed)
    model = model_of(tmp_path / "run", "decoder")
    export_tokenizer(model, tmp_path / "out", card="", provenance={})
    assert "pixel encoder" in model.rounding.sentence  # its decoder was trained last, and is rounded by the export
    exported = SemHiTokModel.from_pretrained(tmp_path / "out")
    assert exported.rounding.sentence == "everything but the codebooks in bfloat16"
    images = pixels(64, seed=51)
    assert torch.equal(exported.encode(images).ids, model.encode(images).ids)
    export_tokenizer(exported, tmp_path / "again", card="", provenance={})
    kinds = {name: tensor.dtype for name, tensor in load_file(tmp_path / "again" / "model.safetensors").items()}
    assert {name for name, kind in kinds.items() if kind != torch.bfloat16} == {
        name for name in kinds if "quantizer." in name
    }
