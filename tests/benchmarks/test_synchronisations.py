"""On a simulated GPU every task takes the CPU's steps, nothing is left on the CPU, and the host waits where it must only."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.records_on_disk import write_scenes
from tests.tiny import processes

ALLOWED = {
    "step: language": 5,
    "step: language, several codes": 7,
    "step: word alignment": 10,
    "image token, one code": 1,
    "image token, several codes": 1,
    "text token, one code": 1,
    "interleaved token, one code": 1,
    "text token, several codes": 1,
    "decode, SemHiTok": 1,
    "decode, UniTok": 1,
}
"""Most waits of each kind of work; none for what is not named."""


def on_the_simulated_gpu(scenes: Path, report: Path) -> None:
    """In a process of its own: PyTorch cannot forget a device."""
    import torch
    from benchmarks.simulated_gpu import GPU, DeviceMixError, SimulatedGPU
    from benchmarks.synchronisations import count, steps, tasks

    cpu = torch.device("cpu")
    losses, found = count(scenes)
    for name, build in tasks(scenes).items():
        assert losses[name] == pytest.approx(steps(*build(cpu), cpu)[0], rel=1e-4), name
    with SimulatedGPU() as gpu:
        with pytest.raises(DeviceMixError, match="of shape"):
            torch.ones(3, device=GPU) + torch.ones(3)
        assert sum(gpu.count(lambda: torch.ones(3, device=GPU).sum().item()).values()) == 1
        assert sum(gpu.count(lambda: torch.tensor([1.0], device=GPU)).values()) == 1
    waits = {name: sum(places.values()) for name, places in found.items()}
    report.write_text("\n".join(f"{name}: {number}" for name, number in waits.items() if number > ALLOWED.get(name, 0)))


def test_tasks_on_a_simulated_gpu(tmp_path: Path):
    scenes, report = write_scenes(tmp_path / "scenes", 24), tmp_path / "report.txt"
    process = processes.Process(target=on_the_simulated_gpu, args=(scenes, report))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert report.read_text() == ""
