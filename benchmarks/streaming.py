"""Streams from an S3 server: every sample once, whatever stops the processes and however many there are.

    python -m benchmarks.streaming [--samples 100000] [--shards 50] [--faults] [--seed 0]

Needs ``pip install semhitok[storage] moto[server]``. A moto server on loopback holds webdataset tars. 4 processes with 2 workers each read
an epoch in batches; they are killed five times at random places, go on from the last multiple of ``CHECKPOINT`` steps, and the
rest is read by 2 and then by 8 processes. With ``--faults``, 5 % of the requests for tars fail, one in 200 is accepted and never answered, 1 % of
the tars (at least one) are truncated, and the server is away for 30 s; pieces and cache are small then, so that the server is needed all
the time. Then the opening of a synthetic index of 50 million samples is timed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import tarfile
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.s3_server import s3_server, set_faults
from PIL import Image

from semhitok.data.feed import StreamFeed
from semhitok.data.indexed_shards import IndexedImages
from semhitok.data.shard_index import TABLE, ShardEntry, index_shards, read_index, read_table
from semhitok.storage import piece_cache
from semhitok.storage.byte_ranges import ByteRange
from semhitok.storage.objects import read_object, write_object
from semhitok.storage.patience import ReadSettings
from semhitok.storage.piece_cache import PieceCache

BUCKET = "s3://bucket/train"
CHECKPOINT = 10  # steps
STOPS = 5
FAILING, STALLING, AWAY = 0.05, 0.005, 30.0  # shares of the requests for tars; seconds
GIVEN_UP = 10.0  # seconds after which a request without an answer is repeated
SMALL_PIECE, SMALL_CACHE = 2**16, 40 * 2**20  # bytes; two windows take 25 MB


def upload(samples: int, shards: int, settings: ReadSettings) -> None:
    """Tars of equal numbers of small pictures."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    picture = buffer.getvalue()
    for shard in range(shards):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for index in range(samples // shards):
                member = tarfile.TarInfo(f"{shard:04d}-{index:06d}.png")
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
        write_object(f"{BUCKET}/train-{shard:04d}.tar", content.getvalue(), settings)


@dataclass(frozen=True)
class World:
    """Processes that read together."""

    ranks: int
    workers: int
    batch: int


def _rank(rank: int, world: World, start: int, steps: int, out: Path, settings: ReadSettings) -> None:
    """Read some steps and write the indices of each to a file, with the samples newly found bad and the seconds since the start."""
    warnings.simplefilter("ignore")
    begun, told = time.monotonic(), set[str]()
    feed = StreamFeed(IndexedImages(BUCKET, settings), 8, 8, seed=1, workers=world.workers)
    batches = feed.batches(start, world.batch, rank, world.ranks)
    with (out / f"{start}-{rank}.jsonl").open("w") as file:
        for _ in range(steps):
            indices = next(batches).indices_B.tolist()
            step = {"indices": indices, "bad": sorted(feed.bad.keys() - told), "at": time.monotonic() - begun}
            told |= feed.bad.keys()
            file.write(json.dumps(step) + "\n")
            file.flush()


def read(world: World, start: int, steps: int, out: Path, settings: ReadSettings, kill_after: float | None) -> int:
    """Read steps from a position; all processes are killed after some seconds. Returns the number of steps that all have done."""
    processes = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(rank, world, start, steps, out, settings))
        for rank in range(world.ranks)
    ]
    for process in processes:
        process.start()
    until = None if kill_after is None else time.monotonic() + kill_after
    for process in processes:
        process.join(None if until is None else max(0.0, until - time.monotonic()))
    for process in processes:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    return min(len(_lines(out / f"{start}-{rank}.jsonl")) for rank in range(world.ranks))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The steps in a rank's file; the last line of one that was killed may be incomplete."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def _truncate(shards: int, settings: ReadSettings) -> int:
    """Cut off the last tenth of 1 % of the tars, at least of one; returns the number of samples that are lost."""
    entries, lost = read_table(BUCKET, settings), 0
    for entry in entries[: max(1, shards // 100)]:
        kept = 9 * entry.size // 10
        index = read_index(BUCKET, entry, PieceCache(settings))
        lost += int((index["offset"] + index["length"] > kept).sum())
        write_object(
            f"{BUCKET}/{entry.name}", read_object(f"{BUCKET}/{entry.name}", ByteRange(0, kept), settings), settings
        )
    return lost


@contextmanager
def _largest(folder: Path, found: list[int]) -> Iterator[None]:
    """Append the largest size in bytes that a folder has meanwhile, looked at twice a second."""
    stopped, sizes = threading.Event(), [0]

    def watch() -> None:
        while not stopped.wait(0.5):
            sizes.append(sum(size for _, _, size in piece_cache.stored_files(folder)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()
        found.append(max(sizes))


def campaign(samples: int, shards: int, *, seed: int, faults: bool, seconds: float, batch: int = 80) -> dict[str, Any]:
    """See the module; ``seconds`` is about the time between two kills. The epoch must be a whole number of batches."""
    chance, result = random.Random(seed), {"samples": samples, "shards": shards, "kills": 0, "worlds": []}
    piece = piece_cache.PIECE
    with tempfile.TemporaryDirectory() as temporary, s3_server() as server:
        limit, timeout = (SMALL_CACHE, GIVEN_UP) if faults else (10**9, 20)
        settings = ReadSettings(timeout=timeout, patience=300, cache=Path(temporary) / "cache", cache_limit=limit)
        out, largest = Path(temporary) / "read", list[int]()
        out.mkdir()
        upload(samples, shards, settings)
        index_shards(BUCKET, settings)
        if faults:
            result["lost"] = _truncate(shards, settings)
            set_faults(server, FAILING, STALLING)
            piece_cache.PIECE = SMALL_PIECE
        begun, position, kept = time.monotonic(), 0, []
        total = samples // batch
        plan = [World(4, 2, batch)] * STOPS + [World(2, 2, batch), World(8, 2, batch)]
        with _largest(settings.cache, largest):
            for number, world in enumerate(plan):
                left = total - position // batch
                last = number == len(plan) - 1
                steps = left if last or number < STOPS else left // 2
                if faults and number == STOPS:
                    first = out / f"{position}-0.jsonl"
                    threading.Thread(target=_go_away_at_the_first_step, args=(server, first), daemon=True).start()
                kill = chance.uniform(0.5, 1.5) * seconds if number < STOPS else None
                done = read(world, position, steps, out, settings, kill)
                if done < steps:
                    done -= done % CHECKPOINT
                    result["kills"] += 1
                kept.append((position, world, done))
                result["worlds"].append((world.ranks, done))
                position += done * batch
        result["seconds"] = round(time.monotonic() - begun, 1)
        result["server"] = set_faults(server, 0, 0)
        result["largest_cache_mib"] = round(largest[0] / 2**20, 1)
        steps = _steps(out, kept)
        warnings.simplefilter("ignore")
        planned = IndexedImages(BUCKET, settings).order(1).indices(0, samples).tolist()
        result |= {"first_batch_s": _first(out), "longest_pause_s": _longest_pause(out)}
    piece_cache.PIECE = piece
    seen = [index for step in steps for index in step["indices"]]
    counts, bad = Counter(seen), {name for step in steps for name in step["bad"]}
    result |= {"read": len(seen), "different": len(counts), "repeated": len(seen) - len(counts), "bad": len(bad)}
    result["as_planned"] = sum(ours == theirs for ours, theirs in zip(seen, planned, strict=False))
    return result


def _go_away_at_the_first_step(server: str, file: Path) -> None:
    while not (file.exists() and file.stat().st_size):
        time.sleep(0.1)
    set_faults(server, FAILING, STALLING, AWAY)


def _steps(out: Path, kept: Sequence[tuple[int, World, int]]) -> list[dict[str, Any]]:
    """The steps that were kept, those of all ranks, in order of position."""
    found = []
    for start, world, steps in kept:
        ranks = [_lines(out / f"{start}-{rank}.jsonl") for rank in range(world.ranks)]
        found += [lines[step] for step in range(steps) for lines in ranks]
    return found


def _first(out: Path) -> list[float]:
    """Seconds from the start to the first batch: the median of all processes, and the most."""
    times = sorted(lines[0]["at"] for path in out.glob("*.jsonl") if (lines := _lines(path)))
    return [round(times[len(times) // 2], 2), round(times[-1], 2)] if times else []


def _longest_pause(out: Path) -> float:
    """Seconds between two steps of a process, the most."""
    times = [[step["at"] for step in _lines(path)] for path in out.glob("*.jsonl")]
    return round(max((b - a for at in times for a, b in itertools.pairwise(at)), default=0.0), 1)


def open_large(samples: int = 50_000_000, per_shard: int = 1000) -> dict[str, float]:
    """Seconds to open a table of so many samples and to have the indices of the first batch, and peak memory in MiB."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = samples // per_shard
        entry = asdict(ShardEntry("", 0, per_shard, per_shard, per_shard))
        lines = (json.dumps(entry | {"name": f"train-{number:06d}.tar"}) for number in range(shards))
        (folder / TABLE).write_text('{"version": 1, "shards": [' + ",".join(lines) + "]}")
        for number in range(shards):
            (folder / f"train-{number:06d}.tar").touch()
        begun, cpu = time.monotonic(), time.process_time()
        source = IndexedImages(folder)
        opened, opened_cpu = time.monotonic() - begun, time.process_time() - cpu
        source.order(0).indices(123_456_789, 256)
        first = time.monotonic() - begun
    order = source.order(0).indices(0, 2_000_000)
    distance = float(np.abs(np.diff(order)).mean() / (samples / 3))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "open_s": opened,
        "open_cpu_s": opened_cpu,
        "first_batch_s": first,
        "peak_mib": peak,
        "distance_to_full_shuffle": distance,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="about the time between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--only-index", action="store_true")
    options = parser.parse_args()
    if not options.only_index:
        found = campaign(
            options.samples, options.shards, seed=options.seed, faults=options.faults, seconds=options.seconds
        )
        print(json.dumps(found), flush=True)
    print(json.dumps(open_large()), flush=True)


if __name__ == "__main__":
    main()
