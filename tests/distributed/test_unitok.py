"""Two gloo ranks train UniTok like one process with the whole batch: the contrastive loss sees the pairs of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.tiny_unitok_training import captioned_feed, unitok_model, unitok_task
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from semhitok import distributed
from semhitok.losses import softmax_contrastive_loss
from semhitok.training.state import TrainState

WORLD = 2
STEPS = 4


def pairs() -> tuple[Tensor, Tensor]:
    """Embeddings of eight images and of their texts, in double precision."""
    image, text = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return image, text


def contrast(rank: int, world: int) -> dict[str, Tensor]:
    """Loss and gradients of one rank's share of the pairs, and of the shared scale."""
    image, text = (whole.chunk(world)[rank].clone().requires_grad_() for whole in pairs())
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    gathered = distributed.gather_with_gradients(image), distributed.gather_with_gradients(text)
    loss = softmax_contrastive_loss(image, text, scale, all_pairs=gathered, first=rank * len(image))
    loss.backward()
    return {"loss": loss.detach(), "image": image.grad, "text": text.grad, "scale": scale.grad}


def trained(rank: int, world: int) -> dict[str, Any]:
    """The mean gradient of the first step (the optimizer's first moment / 0.1), and what the log says of some steps."""
    task = unitok_task(unitok_model(seed=0 if rank == 0 else 9), fresh_codebook=True)
    feed = captioned_feed()
    batches, state = feed.batches(0, 8, rank, world), TrainState(total_steps=STEPS)
    metrics, moments = [], {}
    for _ in range(STEPS):
        state.seed_step(rank)
        found = distributed.average_values({name: float(v) for name, v in task.step([next(batches)], state).items()})
        metrics.append(found)
        if state.step == 0:
            names = {parameter: name for name, parameter in task.model.named_parameters()}
            moments = {names[p]: entry["exp_avg"].clone() for p, entry in task.optimizer.state.items()}
        state.step += 1
    return {"moments": moments, "metrics": metrics, "model": task.model.state_dict()}


def run_rank(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory / 'store'}", rank=rank, world_size=WORLD)
    torch.save({"contrast": contrast(rank, WORLD), "trained": trained(rank, WORLD)}, directory / f"{rank}.pt")
    distributed.destroy_distributed()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("unitok_ranks")
    start_processes(run_rank, args=(directory,), nprocs=WORLD, start_method="forkserver")
    return [torch.load(directory / f"{rank}.pt") for rank in range(WORLD)]


def test_the_contrastive_loss_and_its_gradients_are_those_of_all_pairs(ranks: list[dict[str, Any]]):
    """Each rank has the logits of its own pairs only."""
    image, text = (whole.requires_grad_() for whole in pairs())
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss = softmax_contrastive_loss(image, text, scale)
    loss.backward()
    expected = {"image": image.grad, "text": text.grad}
    for name, value in (("loss", loss.detach()), ("scale", scale.grad)):
        torch.testing.assert_close(sum(state["contrast"][name] for state in ranks) / WORLD, value)
    for rank, state in enumerate(ranks):
        found = state["contrast"]
        for name in ("image", "text"):  # averaged over the ranks, parameters get the whole batch's gradient
            torch.testing.assert_close(found[name] / WORLD, expected[name].chunk(WORLD)[rank])


def test_two_ranks_take_the_steps_of_one(ranks: list[dict[str, Any]]):
    expected = trained(0, 1)
    for state in ranks:
        found = state["trained"]
        assert found["moments"].keys() == expected["moments"].keys()
        for name, moment in expected["moments"].items():
            scale = float(moment.abs().max())
            torch.testing.assert_close(found["moments"][name], moment, atol=1e-4 * scale + 1e-9, rtol=1e-3, msg=name)
        for one, other in zip(expected["metrics"], found["metrics"], strict=True):
            assert other == pytest.approx(one, rel=2e-2, abs=1e-3)


def test_ranks_stay_alike(ranks: list[dict[str, Any]]):
    first, second = (state["trained"]["model"] for state in ranks)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_alone_nothing_is_gathered():
    local = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather_with_gradients(local) is local
