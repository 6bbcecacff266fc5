"""Streams from an S3 server: every sample once, whatever stops the processes and however many there are.

    python -m benchmarks.streaming [--samples 100000] [--shards 50] [--faults] [--seed 0]

Needs ``pip install semhitok[storage] moto[server]``. A moto server on loopback holds webdataset tars. 4 processes with 2 workers each read
an epoch in batches; they are killed five times at random places, go on from the last multiple of ``CHECKPOINT`` steps, and the
rest is read by 2 and then by 8 processes. With ``--faults``, 5 % of the requests for tars fail, one tar is truncated, and the server is away for
30 s. Then the opening of a synthetic index of 50 million samples is timed.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
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
from PIL import Image

from semhitok.data.feed import StreamFeed
from semhitok.data.indexed_shards import IndexedImages
from semhitok.data.shard_index import TABLE, ShardEntry, index_shards
from semhitok.storage.objects import _filesystems, read_object, write_object
from semhitok.storage.patience import ReadSettings

BUCKET = "s3://bucket/train"
CHECKPOINT = 10  # steps
STOPS = 5
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Faults:
    """A WSGI application that refuses some requests for tars, and all while the server is away."""

    def __init__(self, application: Any) -> None:
        self.application, self.share, self.away_until = application, 0.0, 0.0
        self.requests = self.refused = 0
        self._random = random.Random(0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/faults":
            return self._set(environ["QUERY_STRING"], start_response)
        tar = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".tar")
        self.requests += tar
        if time.monotonic() < self.away_until or (tar and self._random.random() < self.share):
            self.refused += 1
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.application(environ, start_response)

    def _set(self, query: str, start_response: Any) -> list[bytes]:
        share, away = (float(part) for part in query.split(","))
        self.share, self.away_until = share, time.monotonic() + away
        body = json.dumps({"requests": self.requests, "refused": self.refused}).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def _serve(port: Any) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.pop("AWS_ENDPOINT_URL", None)
    server = make_server("127.0.0.1", 0, Faults(DomainDispatcherApplication(create_backend_app)), threaded=True)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def s3_server() -> Iterator[str]:
    """A moto server in a process of its own, found by every client through the environment; yields its address."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    before = dict(os.environ)
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{ours.recv()}")
    try:
        import s3fs

        _filesystems.clear()  # of an earlier server
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield os.environ["AWS_ENDPOINT_URL"]
    finally:
        process.kill()
        process.join()
        os.environ.clear()
        os.environ.update(before)


def set_faults(server: str, share: float, away: float = 0.0) -> dict[str, int]:
    """Refuse a share of the requests for tars, and everything for some seconds; returns the counts so far."""
    import urllib.request

    with urllib.request.urlopen(f"{server}/faults?{share},{away}") as answer:
        return json.loads(answer.read())


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
    """Read some steps and write the indices of each to a file, step by step."""
    warnings.simplefilter("ignore")
    feed = StreamFeed(IndexedImages(BUCKET, settings), 8, 8, seed=1, workers=world.workers)
    batches = feed.batches(start, world.batch, rank, world.ranks)
    with (out / f"{start}-{rank}.jsonl").open("w") as file:
        for _ in range(steps):
            indices = next(batches).indices_B.tolist()
            file.write(json.dumps(indices) + "\n")
            file.flush()
        file.write(json.dumps({"bad": sorted(feed.bad)}) + "\n")


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


def _lines(path: Path) -> list[list[int]]:
    if not path.exists():
        return []
    found = [line for line in path.read_text().split("\n")[:-1] if line.startswith("[")]
    return [json.loads(line) for line in found]


def campaign(samples: int, shards: int, *, seed: int, faults: bool, seconds: float, batch: int = 80) -> dict[str, Any]:
    """See the module; ``seconds`` is about the time between two kills. The epoch must be a whole number of batches."""
    chance, result = random.Random(seed), {"samples": samples, "shards": shards, "kills": 0, "worlds": []}
    with tempfile.TemporaryDirectory() as temporary, s3_server() as server:
        settings = ReadSettings(timeout=20, patience=300, cache=Path(temporary) / "cache", cache_limit=10**9)
        out = Path(temporary) / "read"
        out.mkdir()
        upload(samples, shards, settings)
        index_shards(BUCKET, settings)
        if faults:
            whole = read_object(f"{BUCKET}/train-0000.tar", None, settings)
            write_object(f"{BUCKET}/train-0000.tar", whole[: 9 * len(whole) // 10], settings)
            set_faults(server, 0.05)
        begun, position, kept = time.monotonic(), 0, []
        total = samples // batch
        plan = [World(4, 2, batch)] * STOPS + [World(2, 2, batch), World(8, 2, batch)]
        for number, world in enumerate(plan):
            left = total - position // batch
            last = number == len(plan) - 1
            steps = left if last or number < STOPS else left // 2
            if faults and number == STOPS:
                threading.Timer(2.0, set_faults, (server, 0.05, 30.0)).start()
            kill = chance.uniform(0.5, 1.5) * seconds if number < STOPS else None
            done = read(world, position, steps, out, settings, kill)
            if done < steps:
                done -= done % CHECKPOINT
                result["kills"] += 1
            kept.append((position, world, done))
            result["worlds"].append((world.ranks, done))
            position += done * batch
        result["seconds"] = round(time.monotonic() - begun, 1)
        result["server"] = set_faults(server, 0)
        seen, bad = _seen(out, kept), _bad(out)
        warnings.simplefilter("ignore")
        planned = IndexedImages(BUCKET, settings).order(1).indices(0, samples).tolist()
    counts = Counter(seen)
    result |= {"read": len(seen), "different": len(counts), "repeated": len(seen) - len(counts), "bad": len(bad)}
    result["as_planned"] = sum(ours == theirs for ours, theirs in zip(seen, planned, strict=False))
    return result


def _seen(out: Path, kept: Sequence[tuple[int, World, int]]) -> list[int]:
    """The indices of all steps that were kept, in order of position."""
    seen = []
    for start, world, steps in kept:
        ranks = [_lines(out / f"{start}-{rank}.jsonl") for rank in range(world.ranks)]
        seen += [index for step in range(steps) for lines in ranks for index in lines[step]]
    return seen


def _bad(out: Path) -> set[str]:
    """Names of the samples that some process could not read, of those that came to their end."""
    lines = [line for path in out.glob("*.jsonl") for line in path.read_text().split("\n") if line.startswith("{")]
    return {name for line in lines for name in json.loads(line)["bad"]}


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
