"""Two gloo ranks that divide a language model among them train, generate and export like one process that holds it whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.sharded_training import alone, differences, join, take, task_of
from safetensors.torch import load_file
from tests.data.records_on_disk import write_scenes
from tests.mllm.tiny_mllm import mixed_ids
from torch.distributed.device_mesh import DeviceMesh
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.training.compilation import compile_blocks
from semhitok.training.tasks.language import LanguageTask

WORLD, STEPS = 2, 3
TRAINED = ("all", "lora")
PROMPT = {"max_new_tokens": 5, "do_sample": False}


def generated(task: LanguageTask) -> list[list[int]]:
    """Greedy text after some text and an image."""
    ids = mixed_ids(task.model)
    task.model.eval()
    found = task.trained.without_gradients(lambda: task.model.generate(ids, **PROMPT))
    task.trained.train()
    return found.tolist()


def sharded(folder: Path) -> dict[str, Any]:
    """Losses, and what one rank of a sharded run can tell."""
    found: dict[str, Any] = {"losses": {}}
    for trained in TRAINED:
        task = task_of("full", trained)
        found["losses"][f"{trained}, full"] = take(task, folder / "scenes", STEPS)
        if trained == "all":
            found["generated"] = generated(task)
            found["again"] = take(task, folder / "scenes", 1)
            parameters = dict(task.trained.named_parameters())
            tokenizer = {name for name in parameters if ".image_tokenizer." in name}
            found["whole"] = sorted(
                name for name, each in parameters.items() if not distributed.is_sharded(each) and name not in tokenizer
            )
            found["tokenizer is whole"] = not any(distributed.is_sharded(parameters[name]) for name in tokenizer)
            moments = [state["exp_avg"] for state in task.optimizer.state.values()]
            found["moments"] = sum(each.to_local().numel() for each in moments), sum(each.numel() for each in moments)
        target = folder / f"exported_{trained}" if distributed.is_main() else None
        task.export(target)
    task = task_of("hybrid")  # as many nodes as ranks
    found["losses"]["all, hybrid"] = take(task, folder / "scenes", STEPS, accumulation=2)
    found["mesh"] = [list(mesh.shape) for mesh in meshes(task)]
    task = task_of("full", precision="bf16", checkpoint_activations=True)
    torch._dynamo.utils.counters.clear()
    compile_blocks(task.model.language_model, backend="eager")
    found["bf16"] = take(task, folder / "scenes", STEPS)
    counters = torch._dynamo.utils.counters
    found["graphs"] = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    return found


def meshes(task: LanguageTask) -> set[DeviceMesh]:
    return {each.device_mesh for each in task._parameters().values()}  # type: ignore[attr-defined]


def run_everything(rank: int, folder: Path) -> None:
    join(rank, WORLD, folder, ranks_of_a_node=1)
    (folder / f"{rank}.json").write_text(json.dumps(sharded(folder)))
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    write_scenes(folder / "scenes", 24)
    for trained in TRAINED:
        (folder / f"exported_{trained}").mkdir()
    start_processes(run_everything, args=(folder,), nprocs=WORLD, start_method="forkserver")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def test_losses_equal_those_of_one_process(folder: Path, results: list[dict[str, Any]]):
    expected = alone(folder / "scenes", STEPS)
    for result in results:
        assert max(differences(result["losses"], expected).values()) < 1e-5
        assert result["losses"]["all, full"][0] > result["losses"]["all, full"][-1]


def test_everything_but_the_tokenizer_is_divided(results: list[dict[str, Any]]):
    for result in results:
        assert result["whole"] == []
        assert result["tokenizer is whole"]
        assert result["mesh"] == [[WORLD, 1]]
    held, total = [result["moments"][0] for result in results], results[0]["moments"][1]
    assert sum(held) == total
    assert max(held) < 0.6 * total


@pytest.mark.parametrize("trained", TRAINED)
def test_what_is_generated_and_exported_is_the_whole_model(
    folder: Path, results: list[dict[str, Any]], trained: Any, tmp_path: Path
):
    task = task_of("none", trained)
    take(task, folder / "scenes", STEPS)
    if trained == "all":
        assert [result["generated"] for result in results] == [generated(task)] * WORLD
        # Training goes on after generation.
        assert results[0]["again"] == pytest.approx(take(task, folder / "scenes", 1), rel=1e-5)
    task.export(tmp_path)
    expected, found = (load_file(place / "model.safetensors") for place in (tmp_path, folder / f"exported_{trained}"))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_compiled_blocks_in_bf16_learn_alike_without_graph_breaks(folder: Path, results: list[dict[str, Any]]):
    expected = alone(folder / "scenes", STEPS)["all"]
    for result in results:
        assert result["bf16"] == pytest.approx(expected, rel=0.02)
        graphs, breaks = result["graphs"]
        assert graphs > 0
        assert breaks == 0
