"""Killed in the midst of a step of each stage and started again, a run ends as the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests.tiny import STEPS, processes, run_killed, run_tiny

from semhitok.recipes import Recipe
from semhitok.training import checkpoint
from semhitok.types import STAGES


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model" / "model.safetensors") | load_file(
        checkpoint.latest(path / "checkpoints") / "tensors.safetensors"
    )


def test_killed_in_every_stage_and_resumed_equals_the_uninterrupted_run(
    recipe: Recipe, inputs: Path, finished: Path, tmp_path: Path
):
    # Each process resumes the stage in which the one before it died, and dies in the next.
    kills = {stage: random.randrange(5, STEPS) for stage in STAGES}
    for stage, kill_at in kills.items():
        arguments = (recipe, inputs / "images", tmp_path, stage, kill_at)
        process = processes.Process(target=run_killed, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, kills
        saved = sorted(path.name for path in (tmp_path / stage / "checkpoints").iterdir())
        assert saved[-1] == f"step_{kill_at // 4 * 4:08d}", kills
        assert not (tmp_path / stage / "model").exists()
    state = run_tiny(recipe, inputs / "images", tmp_path)
    assert (state.step, state.finished) == (STEPS, True)
    for stage in STAGES:
        first, second = tensors_of(finished / stage), tensors_of(tmp_path / stage)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), (stage, name, kills)
    configurations = [(path / "decoder" / "model" / "config.json").read_text() for path in (finished, tmp_path)]
    assert json.loads(configurations[0]) == json.loads(configurations[1])
