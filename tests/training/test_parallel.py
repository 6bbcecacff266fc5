"""On one process every collective does nothing; blocks are compiled without changing names or results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semhitok.training import parallel


def test_one_process_is_the_main_one_and_collectives_leave_values_alone():
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None
    gradient = layer.weight.grad.clone()
    parallel.average_gradients(layer.parameters())
    parallel.broadcast_parameters(layer)
    assert torch.equal(layer.weight.grad, gradient)
    assert (parallel.rank(), parallel.world_size(), parallel.is_main()) == (0, 1, True)
    assert parallel.average_values({"a": 2.0}) == {"a": 2.0}
    assert parallel.any_rank(True, False) == (True, False)
    assert parallel.from_main(5) == 5


def test_the_device_is_checked(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert parallel.join_ranks("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="cuda:3 was asked for, but 1 GPUs were found"):
        parallel.join_ranks("cuda:3")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        return self.linear(x_ND).tanh()


def test_repeated_blocks_are_compiled_in_place():
    model = nn.Module()
    model.blocks = nn.ModuleList(Block() for _ in range(4))
    model.heads = nn.ModuleList([Block(), nn.Identity()])
    names = list(model.state_dict())
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = model.blocks[0](torch.ones(1, 3))
    assert parallel.compile_blocks(model, backend=backend) == 4
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.blocks[0](torch.ones(1, 3)), expected)
    model.blocks[1](torch.ones(1, 3))
    assert len(graphs) == 1  # shared by the blocks
