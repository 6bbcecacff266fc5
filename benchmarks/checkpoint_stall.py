"""How long does training stand still for a checkpoint? Sharded ones, written in the background, against waiting for them.

    python -m benchmarks.checkpoint_stall [--megabytes 200] [--rounds 5]

Two processes (gloo) hold parameters and AdamW's moments, sharded. Standing still means copying the state; the rest of the write
(files, checksums, flushing, renaming) goes on beside the steps that follow. The median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from benchmarks.ranks import run_ranks
from torch import nn

from semhitok import distributed
from semhitok.training.checkpoint_writer import CheckpointWriter
from semhitok.training.optim import OptimizerConfig, build_adamw, initialise_states

WORLD, WIDTH = 2, 1024


def work(rank: int, folder: Path, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_WORLD_SIZE"] = str(WORLD)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    layers = max(1, round(options.megabytes * 2**20 / (3 * 4 * WIDTH**2)))  # weights and two moments in fp32
    parts = distributed.ShardableParts(layers=nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    mesh = distributed.shard_mesh("full", torch.device("cpu"))
    assert mesh is not None
    distributed.shard(parts, list(parts.get_submodule("layers").children()), mesh)
    optimizer = build_adamw(parts, OptimizerConfig())
    initialise_states(optimizer)
    writer, still, whole = CheckpointWriter(folder / "checkpoints", keep=1), [], []
    for step in range(options.rounds):
        state = {"trained": dict(parts.named_parameters()), "optimizer": optimizer.state_dict()}
        distributed.wait_for_all()
        begun = time.perf_counter()
        writer.save(step, state)
        still.append(time.perf_counter() - begun)
        writer.wait()
        whole.append(time.perf_counter() - begun)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps([still, whole]))
    distributed.destroy_distributed()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="of the whole state")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not run_ranks(work, [(rank, folder, options) for rank in range(WORLD)]):
            return 1
        still, whole = json.loads((folder / "found.json").read_text())
    one, all_of_it = statistics.median(still), statistics.median(whole)
    print(f"stands still {1000 * one:.0f} ms of {1000 * all_of_it:.0f} ms ({100 * one / all_of_it:.0f} %)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
