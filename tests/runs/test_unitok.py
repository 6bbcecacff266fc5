"""UniTok's recipes: published numbers, sizes, a tiny one from captioned images to a loaded model, resume, errors."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import Distance, loop_config, processes, tiny_options
from tests.tiny_unitok_training import (
    ARCHITECTURE,
    run_tiny_unitok,
    save_captioned,
    tiny_unitok_recipe,
    unitok_config,
)

from semhitok.data.sources import ImageFolder
from semhitok.data.transforms import to_float
from semhitok.losses import DinoDiscriminator
from semhitok.recipes import UNITOK_RECIPES
from semhitok.recipes.recipe import DataConfig
from semhitok.recipes.unitok import unitok_large, unitok_nano
from semhitok.recipes.unitok_recipe import DinoSize, PatchSize, TextTower, UniTokRecipe
from semhitok.runs import unitok as unitok_training
from semhitok.runs.preparation import TrainingImages
from semhitok.runs.validation import validation_images
from semhitok.tokenizers import UniTokConfig, UniTokModel
from semhitok.tokenizers.checkpoints import stage_is_finished
from semhitok.tokenizers.unitok.processing import UniTokProcessor
from semhitok.tokenizers.unitok.text import clip_text_tokenizer
from semhitok.training import checkpoint
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.unitok import UniTokTask


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_captioned(tmp_path_factory.mktemp("unitok") / "images")


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unitok") / "run"
    assert run_tiny_unitok(tiny_unitok_recipe(), images, directory, validation=ImageFolder(images)).finished
    return directory


def on_meta(recipe: UniTokRecipe) -> UniTokModel:
    with torch.device("meta"):
        return UniTokModel(UniTokConfig(**recipe.model))


def test_the_recipes_of_the_issue_are_there():
    assert set(UNITOK_RECIPES) == {"unitok_nano", "unitok_large"}
    for name, recipe in UNITOK_RECIPES.items():
        assert recipe().name == name
        assert (recipe.__doc__ or "").strip()


def test_large_is_the_published_model():
    recipe = unitok_large()
    model, task = on_meta(recipe), recipe.task
    assert model.config.to_dict() == UniTokConfig(**recipe.model).to_dict()
    assert (model.num_tokens, model.codes_per_token, model.vocab_size, model.config.width) == (256, 8, 4096, 64)
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(332.3, abs=0.1)
    assert sum(p.numel() for p in model.decoder.parameters()) / 1e6 == pytest.approx(352.4, abs=0.1)
    assert recipe.loop.steps * recipe.loop.batch_size == 1_280_000_000
    assert recipe.loop.batch_size == 64 * 256
    weights = (task.l1_weight, task.l2_weight, task.perceptual_weight, task.contrastive_weight, task.adversarial_weight)
    assert weights == (0.2, 1.0, 1.0, 1.0, 0.4)
    assert (task.codebook_weight, task.commitment_weight, task.consistency_weight) == (1.0, 0.25, 4.0)
    generator, judge = task.optimizer, task.discriminator_optimizer
    assert (generator.learning_rate, generator.beta1, generator.beta2, generator.weight_decay) == (
        5e-4,
        0.9,
        0.95,
        0.02,
    )
    assert (judge.learning_rate, judge.beta1, judge.beta2, judge.weight_decay) == (2e-5, 0.5, 0.9, 0.2)
    assert [part.clip_norm for part in (generator, judge)] == [10.0, 10.0]
    assert generator.final_ratio == 0.1
    assert task.adversarial_start / recipe.loop.steps == pytest.approx(0.375, abs=1e-4)
    assert recipe.text == TextTower(vocab_size=None, context_length=77, width=768, layers=12, heads=12)
    assert recipe.discriminator == DinoSize()
    assert (task.initialise_step, task.revive_until, task.average_decay) == (None, 0.0, None)


def test_nano_is_small():
    recipe = unitok_nano()
    model = on_meta(recipe)
    assert (model.config.image_size, model.num_tokens, model.codes_per_token, model.vocab_size) == (64, 16, 8, 256)
    assert recipe.text == TextTower(vocab_size=2048, context_length=32, width=128, layers=3, heads=4)
    assert recipe.task.perceptual_weight == recipe.task.adversarial_weight == 0
    assert sum(p.numel() for p in model.parameters()) < 4e6


@pytest.mark.parametrize("name", UNITOK_RECIPES)
def test_what_begins_at_a_step_begins_within_the_run(name: str):
    recipe = UNITOK_RECIPES[name]()
    task, steps = recipe.task, recipe.loop.steps
    assert task.adversarial_weight == 0 or task.adversarial_start + task.adversarial_warmup < steps / 2
    assert task.initialise_step is None or task.initialise_step < task.revive_until * steps
    assert task.revive_every < steps / 4


def test_a_run_leaves_a_model_that_loads_with_its_processor(finished: Path, images: Path):
    model, processor = (kind.from_pretrained(finished / "model") for kind in (UniTokModel, UniTokProcessor))
    assert model.config.stages == ["unitok"]
    provenance = model.config.provenance["unitok"]
    assert (provenance["recipe"], provenance["data"], provenance["steps"]) == ("tiny_unitok", "tiny images", 12)
    inputs = processor([images / "000.png", images / "001.png"], ["a red picture", "Green"])
    encoded = model.eval().encode(inputs["pixel_values"])
    assert encoded.ids.shape == (2, 4, 2)
    assert model.decode(encoded.ids).shape == (2, 3, 32, 32)
    assert model.text_embedding(inputs["input_ids"]).shape == (2, 8)
    assert json.loads((finished / "recipe.json").read_text())["task"]["l1_weight"] == 0.2
    assert stage_is_finished(finished, "unitok")
    said: list[str] = []
    assert run_tiny_unitok(tiny_unitok_recipe(), images, finished, report=said.append).step == 0
    assert said == [f"{finished} is done"]


def test_the_validation_psnr_is_that_of_the_weights_in_training(finished: Path, images: Path):
    saved = checkpoint.load(checkpoint.latest(finished / "checkpoints"))["task"]["model"]
    model = UniTokModel.from_pretrained(finished / "model").eval()
    model.load_state_dict(saved)
    pixels = to_float(validation_images(ImageFolder(images), 32, DataConfig()))
    with torch.no_grad():
        drawn = model.decode(model.encode(pixels).ids)
    errors = [((one + 1) / 2 - (other + 1) / 2).square().mean() for one, other in zip(drawn, pixels, strict=True)]
    expected = sum(10 * torch.log10(1 / error) for error in errors) / len(errors)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    (found,) = [line["evaluation/psnr"] for line in lines if "evaluation/psnr" in line]
    assert found == pytest.approx(float(expected), rel=1e-4)


def killed_run(images: Path, directory: Path, kill_at: int) -> None:
    """For a process of its own: die in the midst of step ``kill_at``."""
    torch.set_num_threads(1)
    step = UniTokTask.step

    def killed(self, microbatches, state):
        metrics = step(self, microbatches, state)
        if state.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return metrics

    UniTokTask.step = killed  # type: ignore[method-assign]
    run_tiny_unitok(tiny_unitok_recipe(), images, directory)


def test_killed_and_resumed_equals_the_uninterrupted_run(images: Path, finished: Path, tmp_path: Path):
    process = processes.Process(target=killed_run, args=(images, tmp_path, 9))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step_00000008"
    assert run_tiny_unitok(tiny_unitok_recipe(), images, tmp_path).finished
    for name in ("model/model.safetensors", "checkpoints/step_00000012/tensors.safetensors"):
        first, second = load_file(finished / name), load_file(tmp_path / name)
        assert first.keys() == second.keys()
        assert [key for key, tensor in first.items() if not torch.equal(tensor, second[key])] == []


def test_streamed_captions_train_the_same_model(images: Path, finished: Path, tmp_path: Path):
    recipe = tiny_unitok_recipe(data=DataConfig(flip=False, workers=0, memory_limit=0))
    run_tiny_unitok(recipe, images, tmp_path)
    first, second = (load_file(path / "model" / "model.safetensors") for path in (finished, tmp_path))
    for name, tensor in first.items():  # padded to the batch's longest text instead of the data's
        torch.testing.assert_close(tensor, second[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_missing_caption_is_one_sentence(tmp_path: Path, memory_limit: int):
    folder = save_captioned(tmp_path / "images", without=3)
    recipe = tiny_unitok_recipe(data=DataConfig(flip=False, workers=0, memory_limit=memory_limit))
    with pytest.raises(ValueError, match=r"1 of \d+ images have no caption: the contrastive loss needs") as found:
        run_tiny_unitok(recipe, folder, tmp_path / "run")
    assert "\n" not in str(found.value)
    for file in folder.glob("*.txt"):
        file.unlink()
    with pytest.raises(ValueError, match="no image has a caption"):
        run_tiny_unitok(recipe, folder, tmp_path / "other")
    alone = replace(recipe, task=unitok_config(contrastive_weight=0.0), loop=loop_config(steps=2))
    assert run_tiny_unitok(alone, folder, tmp_path / "run2").finished
    assert UniTokModel.from_pretrained(tmp_path / "run2" / "model").text_model is None


def test_a_run_goes_on_from_a_checkpoint_with_its_text_tokenizer(finished: Path, images: Path, tmp_path: Path):
    recipe = tiny_unitok_recipe(loop=loop_config(steps=1))
    still = replace(recipe, task=unitok_config(optimizer=OptimizerConfig(learning_rate=0.0), initialise_step=None))
    run_tiny_unitok(still, images, tmp_path / "next", start_from=finished / "model")
    first, second = (load_file(path / "model" / "model.safetensors") for path in (finished, tmp_path / "next"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    files = [path / "model" / "tokenizer.json" for path in (finished, tmp_path / "next")]
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())
    config = UniTokConfig.from_pretrained(tmp_path / "next" / "model")
    assert config.stages == ["unitok", "unitok"]
    wider = replace(recipe, model=ARCHITECTURE | {"codebook_size": 4})
    with pytest.raises(
        ValueError, match=r"architecture of the checkpoint .* differs from the recipe's: codebook_size 8, not 4"
    ):
        run_tiny_unitok(wider, images, tmp_path / "wider", start_from=finished / "model")


def test_clip_weights_are_taken_to_start_with(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken: list[Any] = []

    def load(model, path):
        taken.append((type(model), path))
        return type("Found", (), {"loaded": ("a",), "random": (), "left_out": {}})

    monkeypatch.setattr(unitok_training, "load_clip_weights", load)
    recipe = tiny_unitok_recipe(clip_weights="some/vitamin.safetensors", loop=loop_config(steps=1))
    said: list[str] = []
    run_tiny_unitok(recipe, images, tmp_path, report=said.append)
    assert taken == [(UniTokModel, "some/vitamin.safetensors")]
    assert "1 tensors from some/vitamin.safetensors, 0 start at random; 0 of the file are not used" in said
    assert (
        UniTokConfig.from_pretrained(tmp_path / "model").provenance["unitok"]["clip_weights"] == "vitamin.safetensors"
    )


def test_clips_own_text_tokenizer_is_the_default(images: Path, tmp_path: Path):
    text = TextTower(context_length=12, width=16, layers=1, heads=2)
    loaded = TrainingImages(ImageFolder(images), 32, DataConfig(workers=0), tmp_path, lambda line: None)
    system = unitok_training._UniTok(tiny_unitok_recipe(text=text), tiny_options(tmp_path), loaded, None)
    found = system._text_tokenizer(None)
    assert found("a photo of a cat")["input_ids"] == clip_text_tokenizer()("a photo of a cat")["input_ids"]
    assert found.model_max_length == 12


def test_every_value_of_the_recipe_is_read(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No dead knobs: a run with every loss on reads every field of every configuration."""
    task = unitok_config(perceptual_weight=0.1)
    recipe = tiny_unitok_recipe(task=task, discriminator=DinoSize("tiny", taps=(0,), image_size=28))
    values = {"": recipe, "text.": recipe.text, "discriminator.": recipe.discriminator, "data.": recipe.data}
    values |= {"loop.": recipe.loop, "task.": task, "task.optimizer.": task.optimizer}
    values |= {"task.discriminator_optimizer.": task.discriminator_optimizer}
    expected = {path + field.name for path, value in values.items() for field in dataclasses.fields(value)}
    paths, read = {id(value): path for path, value in values.items()}, set()

    def get(self, name):
        if id(self) in paths:
            read.add(paths[id(self)] + name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(unitok_training, "load_perceptual", lambda kind, depth: Distance())
    monkeypatch.setattr(DinoDiscriminator, "from_pretrained", classmethod(tiny_dino))
    monkeypatch.setattr(dataclasses, "asdict", lambda value: {})  # it reads everything
    for kind in {type(value) for value in values.values()}:
        monkeypatch.setattr(kind, "__getattribute__", get)
    run_tiny_unitok(recipe, images, tmp_path)
    assert expected - read == set()


def tiny_dino(cls: type[DinoDiscriminator], name: str, *, taps: tuple[int, ...], image_size: int) -> DinoDiscriminator:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return cls(Dinov2Model(config), taps=taps, image_size=image_size)


def test_kinds_of_discriminators():
    assert isinstance(unitok_training._discriminator(PatchSize(8)), torch.nn.Module)
    with pytest.raises(OSError, match="no/such/place"):
        unitok_training._discriminator(DinoSize("no/such/place"))
