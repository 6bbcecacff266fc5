"""On one process every collective does nothing; blocks are compiled without changing names or results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semhitok import distributed
from semhitok.training.compilation import compile_blocks


def test_one_process_is_the_main_one_and_collectives_leave_values_alone():
    layer = nn.Linear(2, 2)
    with distributed.averaged_gradients(layer.parameters()):
        layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None
    gradient = torch.ones(2, 2)
    distributed.broadcast_parameters(layer)
    distributed.all_reduce_sum(layer.weight.grad)
    assert torch.equal(layer.weight.grad, gradient)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.average_values({"a": 2.0}) == {"a": 2.0}
    assert distributed.any_rank(True, False) == (True, False)
    assert distributed.from_main(5) == 5


def test_the_device_is_checked(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.init_distributed("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="cuda:3 was requested, but 1 GPUs were found"):
        distributed.init_distributed("cuda:3")


def test_devices_by_name_and_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.choose_device("1") == distributed.choose_device("cuda:1") == torch.device("cuda", 1)
    assert distributed.choose_device("cpu") == torch.device("cpu")
    for name in ("2", "cuda:2"):
        with pytest.raises(ValueError, match=f"device {name} was requested, but 2 GPUs were found; use device cpu"):
            distributed.choose_device(name)
    for name in ("gpu", "meta", "cpu:", "-1"):
        with pytest.raises(
            ValueError, match=f"no device '{name}' on this machine; cpu.* such as 0 or cuda:0, are accepted"
        ):
            distributed.choose_device(name)


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
    assert compile_blocks(model, backend=backend) == 4
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.blocks[0](torch.ones(1, 3)), expected)
    model.blocks[1](torch.ones(1, 3))
    assert len(graphs) == 1  # shared by the blocks
