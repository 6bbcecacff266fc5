"""``pretokenize`` on many images: memory, kills, corrupt images, and what a second worker brings.

    python -m benchmarks.token_files [--images 100000] [--kills 20] [--seed 0] [--workers]

Tars of 1,000 small PNG pictures and a tiny tokenizer, so that reading and writing count and not the model. Peak memory is measured at 1 %, 10 % and
all of the images; then a worker is killed at random moments and started again until it is done, and 1 % of the images are corrupt: token files must
be those of a run without either. With ``--workers``, which needs an idle machine, one worker is compared with two: ``nano`` on photographs of
640 x 480 pixels, one thread of the model and one reader each.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import hashlib
import io
import json
import multiprocessing
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.reading_overlap import write_photographs
from PIL import Image
from tests.data.records_on_disk import write_tar
from tests.tiny import tiny_model

from semhitok.data.shards import find_shards
from semhitok.inference.loading import load_tokenizer
from semhitok.runs.pretokenize import REJECTS, Reading, shards_of, tokenize_shards

PER_TAR, DIFFERENT, SIDE = 1000, 100, 16
CORRUPT = 0.01
MIB = 2**20


def write_tars(folder: Path, images: int, per_tar: int = PER_TAR, corrupt: Iterable[int] = ()) -> Path:
    """Tars of pictures, of which ``DIFFERENT`` differ; those at the places ``corrupt`` end too early."""
    generator, pictures = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    bad = set(corrupt)
    for first in range(0, images, per_tar):
        places = range(first, min(first + per_tar, images))
        content = [pictures[place % DIFFERENT][: 100 if place in bad else None] for place in places]
        write_tar(folder / f"{first // per_tar:06d}.tar", [{".png": each} for each in content])
    return folder


def tokenize(data: Path, out: Path) -> None:
    """All shards, in this process."""
    torch.set_num_threads(1)
    list(tokenize_shards(find_shards(data), out, tiny_model(), Reading()))


def peak_memory(work: Callable[..., None], *arguments: Any) -> float:
    """MiB that a process of its own takes at most beyond what it starts with."""
    ours, theirs = multiprocessing.Pipe()

    def measured() -> None:
        before = _memory("VmRSS")
        work(*arguments)
        theirs.send(_memory("VmHWM") - before)

    process = multiprocessing.get_context("fork").Process(target=measured)
    process.start()
    found = ours.recv()
    process.join()
    return found / MIB


def _memory(field: str) -> int:
    """A value of ``/proc/self/status`` in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def kill_at_random(data: Path, out: Path, kills: int, seconds: float, seed: int) -> int:
    """Start a worker until it is done, and kill the first ones after 0 to ``seconds``; returns how many were killed."""
    chance, killed = random.Random(seed), 0
    for attempt in range(kills + 1):
        process = multiprocessing.get_context("fork").Process(target=tokenize, args=(data, out))
        process.start()
        process.join(chance.uniform(0, seconds) if attempt < kills else None)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            killed += 1
    return killed


def contents(folder: Path) -> dict[str, str]:
    """Digest of every token file and list of rejects."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".unfinished")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def only_left_out(whole: Path, broken: Path, per_tar: int, corrupt: Iterable[int]) -> bool:
    """Whether the token files differ in nothing but the rows of corrupt images, which are all listed as rejected."""
    from pyarrow import parquet

    bad = set(corrupt)
    for number, path in enumerate(sorted(whole.glob("*.parquet"))):
        table = parquet.read_table(path)
        rows = [row for row in range(len(table)) if number * per_tar + row not in bad]
        rejects = broken / REJECTS / f"{path.stem}.jsonl"
        keys = [json.loads(line)["key"] for line in rejects.read_text().splitlines()] if rejects.is_file() else []
        wanted = [f"{row:04d}" for row in range(len(table)) if number * per_tar + row in bad]
        if keys != wanted or not parquet.read_table(broken / path.name).equals(table.take(rows)):
            return False
    return True


def campaign(images: int, *, kills: int, seed: int, per_tar: int = PER_TAR) -> dict[str, Any]:
    """See the module."""
    result: dict[str, Any] = {"images": images}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peak_memory(tokenize, write_tars(folder / "first", 2, per_tar), folder / "out-first")  # what is loaded once
        for count in (images // 100, images // 10, images):
            data = write_tars(folder / f"data-{count}", count, per_tar)
            begun = time.monotonic()
            result[f"mib_{count}"] = round(peak_memory(tokenize, data, folder / f"out-{count}"), 1)
            result[f"seconds_{count}"] = round(time.monotonic() - begun, 1)
        few = images // 10
        data, whole = folder / f"data-{few}", folder / f"out-{few}"
        seconds = result[f"seconds_{few}"] / 3
        result["killed"] = kill_at_random(data, folder / "killed", kills, seconds, seed)
        result["same_after_kills"] = contents(folder / "killed") == contents(whole)
        corrupt = random.Random(seed).sample(range(few), max(1, int(CORRUPT * few)))
        tokenize(write_tars(folder / "broken", few, per_tar, corrupt), folder / "out-broken")
        result["corrupt"] = len(corrupt)
        result["only_left_out"] = only_left_out(whole, folder / "out-broken", per_tar, corrupt)
    return result


def _tokenize_photographs(data: Path, out: Path, worker: int, of: int) -> None:
    torch.set_num_threads(1)
    shards = shards_of(find_shards(data, images_per_shard=16), worker, of)
    list(tokenize_shards(shards, out, load_tokenizer("nano", "cpu"), Reading(batch_size=16, readers=1)))


def second_worker(photographs: int = 512, rounds: int = 3) -> dict[str, Any]:
    """Seconds of one worker and of two on the same photographs, loading the model included; medians."""
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "photographs").mkdir()
        write_photographs(folder / "photographs", photographs)
        for _ in range(rounds):
            for workers, found in times.items():
                begun = time.monotonic()
                processes = [
                    multiprocessing.get_context("fork").Process(
                        target=_tokenize_photographs, args=(folder / "photographs", folder / "ids", worker, workers)
                    )
                    for worker in range(workers)
                ]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                found.append(time.monotonic() - begun)
                shutil.rmtree(folder / "ids")
    one, two = (sorted(times[workers])[rounds // 2] for workers in (1, 2))
    return {"photographs": photographs, "one_s": round(one, 1), "two_s": round(two, 1), "speedup": round(one / two, 2)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", action="store_true")
    options = parser.parse_args()
    found = second_worker() if options.workers else campaign(options.images, kills=options.kills, seed=options.seed)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
