"""Two gloo ranks train a task, and all stages of a recipe, like one process that takes two micro-batches per step."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.tiny import (
    loop_config,
    pixel_config,
    run_tiny,
    save_images,
    save_teacher,
    semantic_config,
    tiny_feed,
    tiny_model,
    tiny_recipe,
)
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.recipes import Recipe
from semhitok.tokenizers import SemHiTokModel
from semhitok.training.loop import train
from semhitok.training.state import TrainState
from semhitok.training.tasks.pixel import PixelTask
from semhitok.training.tasks.semantic import SemanticTask
from semhitok.types import STAGES

WORLD = 2
STOP = 5  # the checkpoint of step 4 lies within the interval of steps 4 to 6
TASKS = ("semantic", "vanilla", "pixel", "adversarial")


def model_of(name: str, rank: int = 0) -> SemHiTokModel:
    """The same model on all ranks but for what is to be trained: there the main rank's weights must win.

    To be called before the ranks join: a tiny model is fitted to data, which is a collective.
    """
    kind = "vanilla" if name == "vanilla" else "ema"
    model = tiny_model(semantic_quantizer=kind)
    if rank:
        part = "semantic." if name in ("semantic", "vanilla") else "pixel_"
        other = tiny_model(seed=9, semantic_quantizer=kind).state_dict()
        model.load_state_dict({n: (other if n.startswith(part) else model.state_dict())[n] for n in other})
    return model


def task_of(name: str, model: SemHiTokModel) -> SemanticTask | PixelTask:
    torch.manual_seed(0)  # the discriminator's weights
    match name:
        case "pixel":
            return PixelTask(model, pixel_config(adversarial_weight=0.0), fresh_codebook=True)
        case "adversarial":
            return PixelTask(model, pixel_config(), fresh_codebook=True)
    return SemanticTask(model, semantic_config())


def trained(task: SemanticTask | PixelTask, accumulation: int, directory: Path) -> dict[str, Tensor]:
    """Everything that a run leaves in the model, the average of its weights and the discriminator."""
    train(task, tiny_feed(flip=True), loop_config(accumulation=accumulation), directory)
    state = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    if isinstance(task, PixelTask):
        state |= {f"average.{name}": tensor for name, tensor in task.average.module.state_dict().items()}
    if isinstance(task, PixelTask) and task.adversary is not None:
        state |= {f"discriminator.{name}": tensor for name, tensor in task.adversary.discriminator.state_dict().items()}
        # One more step: the adaptive weight is that of the global batch.
        batch = next(tiny_feed().batches(0, 8, distributed.rank(), distributed.world_size()))
        state["adaptive_weight"] = torch.as_tensor(
            task.step([batch], TrainState(total_steps=50, step=40))["adaptive_weight"]
        )
    return state


def stop_at(task: SemanticTask | PixelTask, step: int) -> None:
    """Fail there, with a checkpoint in the middle of an interval of codebook maintenance before it."""
    usual = task.step

    def failing(microbatches, state):
        if state.step == step:
            raise RuntimeError("stopped")
        return usual(microbatches, state)

    task.step = failing  # type: ignore[method-assign]


def stopped(task: SemanticTask | PixelTask, accumulation: int, directory: Path) -> None:
    stop_at(task, STOP)
    with pytest.raises(RuntimeError, match="stopped"):
        trained(task, accumulation, directory)


def recipe_of(teacher: Path, accumulation: int) -> Recipe:
    """Without the adversarial loss: its augmentation and adaptive weight are per micro-batch."""
    recipe = tiny_recipe(teacher)
    loop, off = loop_config(accumulation=accumulation), {"adversarial_weight": 0.0}
    return replace(
        recipe,
        semantic=replace(recipe.semantic, loop=loop),
        pixel=replace(recipe.pixel, loop=loop, task=pixel_config(**off)),
        pixel_finetune=replace(recipe.pixel_finetune, loop=loop, task=pixel_config(**off)),
        decoder=replace(recipe.decoder, loop=loop, task=pixel_config(**off, decoder_only=True)),
    )


def run_everything(rank: int, directory: Path) -> None:
    """All of one rank in one process."""
    torch.set_num_threads(1)
    models, again, anew = ({name: model_of(name, rank) for name in TASKS} for _ in range(3))
    dist.init_process_group("gloo", init_method=f"file://{directory / 'store'}", rank=rank, world_size=WORLD)
    states = {name: trained(task_of(name, model), 1, directory / name) for name, model in models.items()}
    torch.save(states, directory / f"{rank}.pt")
    for name in TASKS:
        stopped(task_of(name, again[name]), 1, directory / "stopped" / name)
    if rank == 0:
        shutil.copytree(directory / "stopped", directory / "resumed")
    distributed.wait_for_main()
    states = {name: trained(task_of(name, model), 1, directory / "resumed" / name) for name, model in anew.items()}
    torch.save(states, directory / f"resumed_{rank}.pt")
    run_tiny(recipe_of(directory / "teacher", 1), directory / "images", directory / "recipe")
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    save_teacher(directory / "teacher")
    save_images(directory / "images")
    start_processes(run_everything, args=(directory,), nprocs=WORLD, start_method="forkserver")
    return directory


@pytest.fixture(scope="module")
def states(directory: Path) -> list[dict[str, dict[str, Tensor]]]:
    return [torch.load(directory / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", TASKS)
def test_ranks_stay_alike(states: list[dict[str, dict[str, Tensor]]], name: str):
    for key, tensor in states[0][name].items():
        assert torch.equal(tensor, states[1][name][key]), key


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_task_on_two_ranks_equals_the_uninterrupted_one(
    directory: Path, states: list[dict[str, dict[str, Tensor]]], name: str
):
    for rank in range(WORLD):
        resumed = torch.load(directory / f"resumed_{rank}.pt")[name]
        different = [key for key, tensor in states[rank][name].items() if not torch.equal(tensor, resumed[key])]
        assert not different


@pytest.mark.parametrize("name", ["semantic", "vanilla", "pixel"])
def test_a_run_may_go_on_with_another_number_of_ranks(
    directory: Path, states: list[dict[str, dict[str, Tensor]]], name: str, tmp_path: Path
):
    shutil.copytree(directory / "stopped" / name, tmp_path / name)
    found = trained(task_of(name, model_of(name)), 2, tmp_path / name)
    assert all(torch.equal(tensor, found[key]) for key, tensor in states[0][name].items())


@pytest.mark.parametrize("name", ["semantic", "vanilla", "pixel"])
def test_a_task_on_two_ranks_equals_one_of_two_microbatches(
    states: list[dict[str, dict[str, Tensor]]], name: str, tmp_path: Path
):
    expected = trained(task_of(name, model_of(name)), 2, tmp_path)
    untrained = model_of(name).state_dict()
    assert any(not torch.equal(expected[key], tensor) for key, tensor in untrained.items())
    for key, tensor in expected.items():
        assert torch.equal(states[0][name][key], tensor), key


def test_a_recipe_on_two_ranks_equals_one_of_two_microbatches(directory: Path, tmp_path: Path):
    run_tiny(recipe_of(directory / "teacher", 2), directory / "images", tmp_path)
    for stage in STAGES:
        one, two = (
            load_file(path / stage / "model" / "model.safetensors") for path in (tmp_path, directory / "recipe")
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items()), stage
