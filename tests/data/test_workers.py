"""Worker processes end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

READ = """
import multiprocessing, sys, time
from pathlib import Path
from semhitok.data.feed import StreamFeed
from semhitok.data.sources import ImageFolder
feed = StreamFeed(ImageFolder(Path(sys.argv[1])), 256, 256, seed=0, workers=2)
batches = feed.batches(0, 4)
next(batches)
time.sleep(2)  # nobody reads on: the workers' pipes are full, and each worker blocks in a write
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
COMPOSE = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from semhitok.data.workers import follow_parent
pool = ProcessPoolExecutor(2, initializer=follow_parent)
list(pool.map(time.sleep, [0.2] * 4))
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended may stay a zombie where nobody takes its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("script", [READ, COMPOSE], ids=["readers", "pool"])
def test_no_worker_outlives_a_killed_process(tmp_path: Path, script: str):
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    try:
        assert workers
        assert all(map(is_alive, workers))
        process.kill()
        process.wait()
        deadline = time.monotonic() + 5
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [pid for pid in workers if is_alive(pid)] == []
    finally:
        process.kill()
        for pid in workers:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
