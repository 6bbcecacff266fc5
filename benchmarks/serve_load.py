"""A server under load, and how much batching gains: ``python -m benchmarks.serve_load [load] [throughput]``.

Load: many clients send answers, images, streams and tokenization to a server sized for 20 requests; some cut the connection, read
slowly or never finish what they send. Every complete answer must equal the one that the same request got alone; nothing but 200
and 429 may be answered; memory must stay flat; and after SIGTERM every accepted request is answered.

Throughput: requests for each second with 16 clients against one, and the same ratio of the bare model: a batch of 16 against
batches of one. Processor time of the server is given besides, as other processes do not inflate it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from benchmarks.served import Reply, ServerProcess, exchange, post_bytes
from PIL import Image

from semhitok.inference.image_generator import ImageGenerator
from semhitok.inference.loading import load_language_model

SIZED_FOR = {"batch_size": 16, "queue_size": 4}
AT_ONCE = 16
CLIENTS, SECONDS = 200, 60.0
PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "examples" / "photographs").glob("*.jpg"))
QUESTIONS = (
    "What is in the image?",
    "Is there a dog in the image?",
    "How many animals are there?",
    "Describe the image.",
)
PROMPTS = ("a rabbit", "two bananas", "a red car on grass", "three dogs")
CHAT, DRAW, TOKENIZE, DETOKENIZE = (
    "/v1/chat/completions",
    "/v1/images/generations",
    "/v1/tokenize",
    "/v1/detokenize",
)


def photograph(place: int, side: int = 160) -> str:
    """A data URL of a small photograph."""
    file = io.BytesIO()
    with Image.open(PHOTOGRAPHS[place % len(PHOTOGRAPHS)]) as image:
        image.convert("RGB").resize((side, side)).save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def requests() -> list[bytes]:
    """Different requests whose answers are determined."""
    found: list[bytes] = []
    for place in range(12):
        image = {"type": "image_url", "image_url": {"url": photograph(place)}}
        parts = [*([image] if place % 3 else []), {"type": "text", "text": QUESTIONS[place % len(QUESTIONS)]}]
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 8 + 4 * place, "stream": place % 2 == 0}
        found.append(post_bytes(CHAT, body))
    for place, prompt in enumerate(PROMPTS):
        found.append(
            post_bytes(DRAW, {"prompt": prompt, "seed": place, "guidance": 1.0 + place, "temperature": place % 2})
        )
    found += [post_bytes(TOKENIZE, {"images": [photograph(place), photograph(place + 1)]}) for place in range(6)]
    found += [
        post_bytes(DETOKENIZE, {"ids": [[(place * 97 + n * 31) % 8192 for n in range(64)]]}) for place in range(4)
    ]
    return found


def content_of(reply: Reply) -> Any:
    """What an answer says, without its name and time."""
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in reply.body.decode().split("\n\n") if line]
        if lines[-1] != "[DONE]":
            return "cut off"
        choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
        return "".join(choice["delta"].get("content", "") for choice in choices), choices[-1]["finish_reason"]
    value = reply.json
    if "choices" in value:
        return value["choices"][0]["message"]["content"], value["choices"][0]["finish_reason"]
    return value["data"]


@dataclass
class Tally:
    """What happened to the requests of all clients."""

    statuses: Counter[int] = field(default_factory=Counter)
    answered: int = 0
    wrong: list[int] = field(default_factory=list)
    cut: int = 0
    slow: int = 0
    megabytes: list[float] = field(default_factory=list)


async def client(
    port: int,
    wanted: Sequence[tuple[bytes, Any]],
    random: Random,
    tally: Tally,
    until: Callable[[], bool],
    *,
    tidy: bool,
) -> None:
    """One client that sends request after request; ``tidy`` ones neither cut connections nor read slowly."""
    while not until():
        number = random.randrange(len(wanted))
        data, content = wanted[number]
        manner = 1.0 if tidy else random.random()
        if manner < 0.06:
            await cut_short(port, data, random)
            tally.cut += 1
            continue
        tally.slow += manner < 0.12
        reply = await exchange(port, data, pause=0.2 if manner < 0.12 else 0.0)
        tally.statuses[reply.status] += 1
        if reply.status == 200:
            tally.answered += 1
            if content_of(reply) != content:
                tally.wrong.append(number)
        elif reply.status == 429:
            await asyncio.sleep(int(reply.headers["retry-after"]) * random.uniform(0.5, 1.0))
        else:
            await asyncio.sleep(0.2)


async def cut_short(port: int, data: bytes, random: Random) -> None:
    """Send some or all of a request, and close the connection soon."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data[: random.randrange(len(data) // 2, 2 * len(data))])
        await asyncio.sleep(random.uniform(0, 0.5))
        writer.transport.abort()
    except OSError:
        pass


async def load(server: ServerProcess, seconds: float, clients: int) -> tuple[Tally, Tally]:
    """The load of some seconds, then SIGTERM under a load of tidy clients."""
    wanted = [(data, content_of(await exchange(server.port, data))) for data in requests()]
    first, end = Tally(), time.monotonic() + seconds
    working = [
        asyncio.create_task(
            client(server.port, wanted, Random(place), first, lambda: time.monotonic() > end, tidy=False)
        )
        for place in range(clients)
    ]
    while time.monotonic() < end:
        first.megabytes.append(server.megabytes)
        await asyncio.sleep(1)
    await asyncio.gather(*working)
    last, ended = Tally(), asyncio.Event()
    working = [
        asyncio.create_task(client(server.port, wanted, Random(-place - 1), last, ended.is_set, tidy=True))
        for place in range(clients)
    ]
    await asyncio.sleep(5)
    server.terminate()
    await asyncio.to_thread(server.finish, 120)
    ended.set()
    await asyncio.gather(*working)
    return first, last


async def rate(server: ServerProcess, bodies: Sequence[bytes], clients: int) -> tuple[float, float]:
    """Seconds and processor seconds for each request, with so many clients."""
    queue = iter(bodies)

    async def work() -> None:
        for data in queue:
            assert (await exchange(server.port, data)).status == 200

    begun, cpu = time.monotonic(), server.cpu_seconds
    await asyncio.gather(*(work() for _ in range(clients)))
    return (time.monotonic() - begun) / len(bodies), (server.cpu_seconds - cpu) / len(bodies)


def bare(count: int, batch: int, work: Callable[[int, int], object]) -> tuple[float, float]:
    """Seconds and processor seconds of the bare model for each item, in batches."""
    begun, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, batch):
        work(start, batch)
    return (time.perf_counter() - begun) / count, (time.process_time() - cpu) / count


def throughput(server: ServerProcess, rounds: int = 2) -> dict[str, dict[str, float]]:
    """Ratios of one by one to 16 at a time, of the server and of the bare model; medians of some rounds."""
    model, processor = load_language_model(device="cpu")
    generator = ImageGenerator(model, processor)
    images = [Image.open(path).convert("RGB").resize((64, 64)) for path in PHOTOGRAPHS]
    pixels = processor.image_processor(images * 6)["pixel_values"]

    def draw(start: int, size: int) -> None:
        generator([PROMPTS[place % 4] for place in range(start, start + size)], list(range(start, start + size)))

    with torch.no_grad():
        kinds: dict[str, tuple[list[bytes], int, Callable[[int, int], object]]] = {
            "tokenize": (
                [post_bytes(TOKENIZE, {"images": [photograph(place, 64)]}) for place in range(96)],
                32,
                lambda start, size: model.image_tokenizer.encode(pixels[:size]),
            ),
            "generation": (
                [post_bytes(DRAW, {"prompt": PROMPTS[place % 4], "seed": place}) for place in range(32)],
                8,
                draw,
            ),
        }
        found: dict[str, dict[str, float]] = {}
        for kind, (bodies, count, work) in kinds.items():
            rows: list[list[tuple[float, float]]] = []
            for _ in range(rounds):
                alone = asyncio.run(rate(server, bodies[: len(bodies) // 6], 1))
                together = asyncio.run(rate(server, bodies, AT_ONCE))
                rows.append([alone, together, bare(count // 2, 1, work), bare(max(count, 2 * AT_ONCE), AT_ONCE, work)])
            for clock, name in enumerate(("wall", "cpu")):
                one, many, bare_one, bare_many = (
                    statistics.median(row[place][clock] for row in rows) for place in range(4)
                )
                found[f"{kind}, {name}"] = {
                    "server_one_ms": one * 1e3,
                    "server_16_ms": many * 1e3,
                    "server_ratio": one / many,
                    "bare_one_ms": bare_one * 1e3,
                    "bare_16_ms": bare_many * 1e3,
                    "bare_ratio": bare_one / bare_many,
                    "share": (one / many) / (bare_one / bare_many),
                }
    return found


def check(first: Tally, last: Tally, server: ServerProcess) -> list[str]:
    """What went wrong."""
    faults = [f"status {status}: {count} times" for status, count in first.statuses.items() if status not in (200, 429)]
    faults += [f"request {number} got another answer than alone" for number in (*first.wrong, *last.wrong)]
    faults += [f"status {status} at the end" for status in last.statuses if status not in (0, 200, 429, 503)]
    third = len(first.megabytes) // 3
    middle, late = (
        statistics.mean(part) for part in (first.megabytes[third : 2 * third], first.megabytes[2 * third :])
    )
    if late > 1.05 * middle:
        faults.append(f"memory grew from {middle:.0f} to {late:.0f} MiB")
    accepted = server.said[-1].rpartition("finished, ")[2].split(" accepted")[0].split(" of ")
    if len(accepted) != 2 or accepted[0] != accepted[1]:
        faults.append(f"accepted requests were lost: {server.said[-1]}")
    if server.process.returncode != 0:
        faults.append(f"the server ended with code {server.process.returncode}")
    return faults + [line for line in server.said if "Traceback" in line or "Error" in line]


def report_throughput() -> list[str]:
    """Print the ratios; no faults, since what the cores allow differs."""
    with ServerProcess("--threads", 1) as server:
        for kind, values in throughput(server).items():
            print(kind, {name: round(value, 2) for name, value in values.items()})
        server.terminate()
        server.finish()
    return []


def report_load() -> list[str]:
    """Print what happened under load; what went wrong."""
    sizes = [text for name, value in SIZED_FOR.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    with ServerProcess("--threads", 1, *sizes) as server:
        first, last = asyncio.run(load(server, SECONDS, CLIENTS))
        faults = check(first, last, server)
    print(
        f"{CLIENTS} clients, {SECONDS:g} s: statuses {dict(first.statuses)}, {first.cut} cut, {first.slow} slow readers"
    )
    third = len(first.megabytes) // 3
    memory = [round(statistics.mean(part)) for part in (first.megabytes[:third], first.megabytes[-third:])]
    print(f"memory in the first and last third: {memory} MiB; SIGTERM under load: {dict(last.statuses)}")
    print(f"the server said last: {server.said[-1]}")
    return faults


CAMPAIGNS = {"load": report_load, "throughput": report_throughput}


def main(arguments: list[str]) -> int:
    """Run both campaigns, or those that are named."""
    torch.set_num_threads(1)
    faults = [fault for name in arguments or CAMPAIGNS for fault in CAMPAIGNS[name]()]
    print(f"{len(faults)} faults", *faults[:20], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
