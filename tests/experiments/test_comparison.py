"""The comparison is fair by construction; a system is trained once and measured the same again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import SIZE, save_images, save_teacher, tiny_recipe
from tests.tiny_vit import tiny_vit_recipe

from semhitok.data.sources import ImageFolder
from semhitok.experiments import ExperimentContext
from semhitok.experiments.compared import BACKBONE_PARTS, ComparedExperiment, ViTSystem
from semhitok.experiments.comparison import SETS, SUPERVISION, chosen_systems, comparison, save_pareto_plot
from semhitok.experiments.results import Result
from semhitok.experiments.semhitok import SemanticGroups, SemHiTokExperiment
from semhitok.recipes import VIT_RECIPES
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.settings import parameters_of
from semhitok.tokenizers.vit_tokenizer import ViTTokenizerConfig, ViTTokenizerModel

TEACHER = TeacherConfig.efficientnet_lite0()
ROWS = {row.label["system"]: row for row in comparison(chosen_systems(["all"])).rows}


def experiment_of(system: str) -> ComparedExperiment:
    experiment = ROWS[system].experiment
    assert isinstance(experiment, ComparedExperiment)
    return experiment


def full_size_model(system: str) -> Any:
    """The model of a row, with random weights."""
    trained = experiment_of(system).trained
    if isinstance(trained, SemHiTokExperiment):
        return SemHiTokModel(SemHiTokConfig(teacher_config=TEACHER, **trained.recipe.model))
    assert isinstance(trained, ViTSystem)
    fields = dict(trained.recipe.model)
    if fields.get("semantic_channels"):
        fields["target_dim"] = TEACHER.backbone_config.hidden_size
    if fields.get("semantic_dim"):
        fields["teacher_config"] = TEACHER
    return ViTTokenizerModel(ViTTokenizerConfig(system=system, **fields))


def reconstruction_of(system: str) -> dict[str, Any]:
    """Settings of the stage that trains the decoder."""
    settings = experiment_of(system).settings()
    names = [name for name in ("reconstruction", "pixel", "joint") if name in settings]
    assert len(names) == 1
    return settings[names[0]]


def test_all_have_the_same_images_steps_optimizer_and_teacher():
    common = reconstruction_of("vqgan")
    for system, row in ROWS.items():
        settings, stage = row.experiment.settings(), reconstruction_of(system)
        assert (stage["steps"], stage["batch_size"]) == (common["steps"], common["batch_size"]), system
        for name in ("optimizer", "l1_weight", "perceptual_weight", "adversarial_weight", "average_decay", "precision"):
            assert stage["task"][name] == common["task"][name], (system, name)
        for name in ("initialise_step", "revive_every", "revive_until", "revive_below", "reservoir_size"):
            assert stage["task"][name] == common["task"][name], (system, name)
        assert settings["flip"] is False
        assert settings["model"]["image_size"] == 64
        assert settings["model"]["patch_size"] == 8
        if "teacher" in settings:
            assert (settings["teacher"], settings["teacher_image_size"]) == ("efficientnet-lite0", 128)


def test_stages_for_the_semantic_part_alone_are_the_same_for_all_that_have_one():
    found = [
        experiment_of(system).settings().get("semantic") or experiment_of(system).settings().get("understanding")
        for system in ("semhitok", "dualvitok", "toklip")
    ]
    assert {(stage["steps"], stage["batch_size"]) for stage in found} == {(300, 128)}
    assert all(stage["task"]["optimizer"] == found[0]["task"]["optimizer"] for stage in found)


def test_backbones_are_of_one_size_and_bits_equal_or_said():
    backbones = {}
    for system in ROWS:
        with torch.device("meta"):
            model = full_size_model(system)
        parts = parameters_of(model)
        backbones[system] = sum(parts.get(name, 0) for name in BACKBONE_PARTS)
        bits = model.num_tokens * model.codes_per_token * math.log2(model.vocab_size)
        assert bits == (2048 if system.endswith("2048bit") else 768), system
    assert max(backbones.values()) <= 1.05 * min(backbones.values()), backbones


def test_the_supervision_of_every_system_is_a_column():
    for system, row in ROWS.items():
        uses = "teacher" in row.experiment.settings()
        assert (row.label["supervision"] == "none") != uses, system
    assert set(SUPERVISION) == set(VIT_RECIPES)
    assert set(SETS["all"]) == set(ROWS)
    assert len(ROWS) >= 14


def test_sets_and_systems_are_chosen_by_name():
    assert chosen_systems(["fsq", "unified", "fsq"])[:2] == ["fsq", "vila-u"]
    with pytest.raises(
        ValueError,
        match=r"unknown system 'vqgann': choose sets or systems from reconstruction, unified, all, sghc, vqgan",
    ):
        chosen_systems(["vqgan", "vqgann"])


def test_the_controls_of_sghc_differ_in_the_sub_codebook_or_the_steps_alone():
    table = comparison(chosen_systems(["sghc"]))
    assert table.name == "sghc"
    assert comparison(["semhitok"]).name == "comparison"
    settings = {row.label["system"]: row.experiment.settings() for row in table.rows}
    common = settings["semhitok"]
    for system, own in settings.items():
        longer = 4 if system.endswith("-4x") else 1
        assert own["pixel"]["steps"] == longer * common["pixel"]["steps"]
        assert own["semantic"] == common["semantic"]
        changed = {
            name for name in own["model"] | common["model"] if own["model"].get(name) != common["model"].get(name)
        }
        assert changed <= {"pixel_codebook"}
        rule = system.removesuffix("-4x").removeprefix("sghc-")
        assert own["model"].get("pixel_codebook", "semantic") == (rule if rule in ("random", "shared") else "semantic")
        groups = {"kind": rule.split("-")[0], "groups": int(rule.split("-")[1])} if "-" in rule else None
        assert own.get("grouped") == groups
    assert ROWS["semhitok"].experiment.settings() == common, "one run serves both tables"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    folder = tmp_path_factory.mktemp("compared")
    save_teacher(folder / "teacher")
    images = save_images(folder / "images", 24)
    for index, path in enumerate(sorted(images.glob("*.png"))):
        scene = {
            "objects": [{"box": [0, 0, 9, 9], "category": "red" if index % 2 else "green", "concept": f"c{index % 8}"}]
        }
        path.with_suffix(".json").write_text(json.dumps(scene))
    source = ImageFolder(images)
    return ExperimentContext(
        source, source, folder, folder, "images", folder / "out", torch.device("cpu"), 24, lambda line: None, None, ()
    )


def tiny(system: str, place: ExperimentContext) -> ComparedExperiment:
    teacher = place.train_folder / "teacher"
    if system in ("semhitok", "sghc-alike-4"):
        grouped = SemanticGroups("alike", 4) if system == "sghc-alike-4" else None
        recipe = tiny_recipe(teacher).with_loop("semantic", steps=4).with_loop("pixel", steps=4)
        return ComparedExperiment(system, SemHiTokExperiment(system, recipe, grouped=grouped))
    return ComparedExperiment(system, ViTSystem(tiny_vit_recipe(system, teacher)))


@pytest.mark.parametrize("system", ["wetok", "toklip", "semhitok", "sghc-alike-4"])
def test_every_system_is_measured_in_the_same_way(system: str, place: ExperimentContext):
    experiment = tiny(system, place)
    assert experiment.model_folder(place, 0) is None
    found = experiment.run(place, 0)
    assert found.keys() >= {
        "psnr",
        "ssim",
        "usage",
        "perplexity",
        "bits",
        "probe_codes",
        "neighbours_codes",
        "probe_chance",
    }
    assert found.keys() >= {"encode_per_second", "decode_per_second", "weights_megabytes", "parameters", "backbone"}
    assert ("probe_predicted" in found) == (system != "wetok")
    assert found["understanding"] == max(found["probe_codes"], found.get("probe_predicted", 0))
    assert found["tokens"] == (SIZE // 8) ** 2
    model = load_tokenizer(experiment.model_folder(place, 0) or "none")
    if system == "sghc-alike-4":
        assert sorted(model.config.semantic_groups) == [group for group in range(4) for _ in range(4)]
        assert model.state_dict()["pixel_quantizer.codebook_KmD"].shape == (4, 4, 4)
        stages = {path.name for path in place.runs.glob("semantic-*-seed0")}
        assert len(stages) == 1, "stage 1 is shared with SGHC"
    again = experiment.run(place, 0)
    timed = {"encode_per_second", "decode_per_second"}
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in found.items() if k not in timed}
    if system == "wetok":
        assert experiment.run(place, 1)["psnr"] != found["psnr"]
        folders = {path.name for path in place.runs.glob("wetok-*")}
        longer = tiny_vit_recipe("wetok")
        longer = ViTSystem(longer.with_loop("reconstruction", steps=5))
        assert longer.settings() != experiment.settings()
        ComparedExperiment(system, longer).run(place, 0)
        assert len({path.name for path in place.runs.glob("wetok-*")} - folders) == 1, "a folder for other settings"


def test_the_plot_shows_what_is_measured(tmp_path: Path):
    table = comparison(["vqgan", "toklip"])
    assert not save_pareto_plot(tmp_path / "pareto.png", table, {})
    metrics = {"understanding": 0.4, "psnr": 20.0, "bits": 768.0}
    results = {"compared-vqgan": [Result("compared-vqgan", 0, {}, metrics, 1.0, {})]}
    assert save_pareto_plot(tmp_path / "pareto.png", table, results)
    assert (tmp_path / "pareto.png").exists()
