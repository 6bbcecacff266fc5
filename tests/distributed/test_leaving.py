"""Ranks leave together: the main rank, whose process holds the store, stays until the others need it no more."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import torch.distributed as dist
from tests.tiny import processes

from semhitok import distributed
from semhitok.distributed import waiting

WORLD = 2


def leave(rank: int, port: int) -> None:
    """Rank 1 looks into the store late, as on a machine with much other work."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD))
    dist.init_process_group("gloo")
    usual = waiting._wait_for

    def late(*arguments: Any) -> None:
        time.sleep(1.0)
        usual(*arguments)

    if rank == 1:
        waiting._wait_for = late
    distributed.leave_together()
    os._exit(0)  # the store is gone with the main rank


def test_the_main_rank_leaves_last():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [processes.Process(target=leave, args=(rank, port)) for rank in range(WORLD)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    assert [each.exitcode for each in ranks] == [0] * WORLD
