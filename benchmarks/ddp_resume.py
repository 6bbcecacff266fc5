"""Why gradients are not averaged by DistributedDataParallel: does a resumed run equal the uninterrupted one, bit for bit?

    python -m benchmarks.ddp_resume [--ranks 2 4] [--steps 6]

A small network is trained without a stop, and again with everything that is not weights or moments made anew in the middle, as a
resumed run does: by DistributedDataParallel as it comes, by it with ``find_unused_parameters`` (which keeps the buckets of the first
step), and by ``distributed.averaged_gradients``. Printed is how many weights differ at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from benchmarks.ranks import run_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semhitok import distributed
from semhitok.distributed import gradients

WIDTHS = (64, 96, 128, 96, 64, 80, 48, 64)
BUCKET = 64 * 1024
Call = Callable[[Tensor], Tensor]


def plain(model: nn.Module) -> tuple[Call, Callable[[], AbstractContextManager[None]]]:
    return model, lambda: distributed.averaged_gradients(model.parameters())


def ddp(model: nn.Module, unused: bool = False) -> tuple[Call, Callable[[], AbstractContextManager[None]]]:
    cap = BUCKET / 2**20
    return DistributedDataParallel(model, bucket_cap_mb=cap, find_unused_parameters=unused), nullcontext  # pyright: ignore


SIDES = {
    "DistributedDataParallel": ddp,
    "the same, find_unused_parameters": lambda model: ddp(model, unused=True),
    "averaged_gradients": plain,
}


def trained(side: str, steps: int, stop: int | None) -> list[Tensor]:
    """The weights after some steps; what is not part of a checkpoint is made anew at step ``stop``."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.GELU()) for a, b in pairwise(WIDTHS)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    call, averaging = SIDES[side](model)
    for step in range(steps):
        if step == stop:
            call, averaging = SIDES[side](model)
        torch.manual_seed(1000 * step + dist.get_rank())
        with averaging():
            call(torch.randn(32, WIDTHS[0])).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return [parameter.detach() for parameter in model.parameters()]


def work(rank: int, world: int, folder: Path, steps: int) -> None:
    """One rank."""
    torch.set_num_threads(1)
    gradients.BUCKET_BYTES = BUCKET
    dist.init_process_group("gloo", init_method=f"file://{folder / f'store_{world}'}", rank=rank, world_size=world)
    found = {}
    for side in SIDES:
        whole, resumed = trained(side, steps, None), trained(side, steps, steps // 2)
        different = sum(int((one != other).sum()) for one, other in zip(whole, resumed, strict=True))
        found[side] = different, sum(one.numel() for one in whole)
    if rank == 0:
        (folder / f"{world}.json").write_text(json.dumps(found))
    distributed.destroy_distributed()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit code 1 if our own averaging is not bit-exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args(arguments)
    wrong = 0
    print("| ranks | averaged by | weights that differ after resuming |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for world in options.ranks:
            if not run_ranks(work, [(rank, world, Path(name), options.steps) for rank in range(world)]):
                return 1
            for side, (different, count) in json.loads((Path(name) / f"{world}.json").read_text()).items():
                print(f"| {world} | {side} | {different:,} of {count:,} |", flush=True)
                wrong += different if side == "averaged_gradients" else 0
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
