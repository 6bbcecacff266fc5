"""Mutated requests against a server: ``python -m benchmarks.hostile_requests [count]``.

Each request is a function of its number. Whatever a mutation leaves valid is answered (200); all else must be refused with 4xx, in
one sentence in OpenAI's shape. 5xx, a connection that is closed without an answer although the request was complete, a
traceback in the log or another answer to a valid request afterwards are faults.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from benchmarks.served import Reply, ServerProcess, exchange, post_bytes, request_bytes
from PIL import Image

AT_ONCE = 24
BLOCK = 500
RECEIVE_SECONDS = 5
ATOMS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**400, 2**63, -(2**63) - 1, 1e300, -0.0, float("nan"), float("inf")),
    *(
        "",
        " ",
        "a",
        "<image>",
        "<|assistant|>",
        "\ud800",
        "a\0b",
        "\u202e\u2028",
        "😀" * 50,
        "x" * 100_000,
        [],
        {},
        [[]],
    ),
    *(
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "/dev/zero",
        "data:",
        "data:image/png;base64,AA=A",
        "NaN",
        "1e999",
    ),
)
PATHS = ("/v1/chat/completions", "/v1/images/generations", "/v1/tokenize", "/v1/detokenize")
BROKEN_HEADS = (
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
    b"POST /v1/chat/completions HTTP/9.9\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /%00%ff/../../etc HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"DELETE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


def picture(random: Random) -> bytes:
    """A small image file, sound or damaged, or one whose header promises more than it should."""
    file = io.BytesIO()
    side = random.choice((8, 16, 64, 200))
    Image.effect_noise((side, side), 60).convert("RGB").save(file, random.choice(("PNG", "JPEG", "WEBP", "GIF")))
    data = bytearray(file.getvalue())
    kind = random.randrange(5)
    if kind == 0:
        for _ in range(random.randrange(1, 20)):
            data[random.randrange(len(data))] = random.randrange(256)
    elif kind == 1:
        del data[random.randrange(len(data)) :]
    elif kind == 2:  # a PNG header of up to 4 billion by 4 billion pixels
        size = random.choice((30_000, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
        data[:] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size * 2 + bytes(data[24:])
    return bytes(data)


def valid_body(random: Random) -> tuple[str, Any]:
    """A path and a small body that is accepted, but for its image."""
    url = f"data:image/png;base64,{base64.b64encode(picture(random)).decode()}"
    path = random.choice(PATHS)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is in the image?"}]
    return path, {
        PATHS[0]: {"messages": [{"role": "user", "content": parts}], "max_tokens": 2, "stream": random.random() < 0.3},
        PATHS[1]: {"prompt": "a rabbit", "size": "64x64", "n": 1},
        PATHS[2]: {"images": [url], "fit": "crop"},
        PATHS[3]: {"ids": [[random.randrange(8192) for _ in range(64)]]},
    }[path]


def mutated_value(value: Any, random: Random) -> Any:
    """The value with one place of it replaced, removed, repeated or wrapped."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice(list(value))
        change = random.randrange(6)
        if change == 0:
            return {key: each for key, each in value.items() if key != name}
        if change == 1:
            return value | {random.choice(("tools", "n", "size", "é", "", "__class__")): random.choice(ATOMS)}
        return value | {name: mutated_value(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        if random.random() < 0.15:
            return value * random.choice((0, 2, 40))
        return [*value[:place], mutated_value(value[place], random), *value[place + 1 :]]
    if random.random() < 0.1:
        return [[value]]
    return random.choice(ATOMS)


def hostile_request(number: int) -> tuple[bytes, bool]:
    """What is sent, and whether it is a complete request, so that an answer is owed."""
    random = Random(number)
    kind = random.randrange(20)
    if kind == 0:
        return random.choice(BROKEN_HEADS), False
    path, value = valid_body(random)
    if path == PATHS[1] and kind < 16:  # a valid one takes as long as a hundred refusals
        value["size"] = "1x1"
    if kind in (1, 2):
        data = bytearray(json.dumps(value).encode())
        for _ in range(random.randrange(1, 6)):
            data[random.randrange(len(data))] = random.randrange(256)
        return request_bytes(path, bytes(data)), True
    if kind == 3:
        data = json.dumps(value).encode()
        return request_bytes(path, data[: random.randrange(len(data))]), True
    if kind == 4:  # the body ends before its announced length
        whole = post_bytes(path, value)
        return whole[: random.randrange(len(whole))], False
    if kind == 5:
        return request_bytes(
            path, random.choice((b"[" * 50_000, b'{"a":' * 50_000, b"\xff" * 1000, b"", b"null"))
        ), True
    if kind == 6:
        kinds = ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data; boundary=x", "a" * 500)
        return request_bytes(path, json.dumps(value).encode(), content_type=random.choice(kinds)), True
    if kind in (7, 8):
        body = random.choice(
            (picture(random), random.randbytes(200), b"\x93NUMPY\x01\x00v\x00{'descr'" + random.randbytes(90))
        )
        binary = random.choice(("image/png", "application/octet-stream"))
        return request_bytes(random.choice(PATHS[2:]), body, content_type=binary), True
    for _ in range(random.randrange(1, 3)):
        value = mutated_value(value, random)
    method = "POST" if random.random() < 0.97 else random.choice(("GET", "PUT", "OPTIONS", "a"))
    return request_bytes(path, json.dumps(value).encode(), method), True


def fault_of(reply: Reply, owed: bool) -> str | None:
    """What is wrong with the answer to a hostile request."""
    if reply.status == 0:
        return "no answer" if owed else None
    if reply.status == 200:
        return None
    if not 400 <= reply.status < 500:
        return f"status {reply.status}"
    try:
        (error,) = reply.json.values()
        sentence = error["message"]
    except (ValueError, AttributeError, KeyError, TypeError):
        return f"not in OpenAI's shape: {reply.body[:100]!r}"
    if (
        set(error) != {"message", "type", "param", "code"}
        or "\n" in sentence
        or "Traceback" in sentence
        or len(sentence) > 500
    ):
        return f"no sentence: {sentence[:100]!r}"
    return None


async def send_all(
    port: int, count: int, *, at_once: int = AT_ONCE, progress: Callable[[int], None] = lambda done: None
) -> tuple[Counter[int], list[str]]:
    """Send so many hostile requests; how often each status was answered, and the faults."""
    statuses: Counter[int] = Counter()
    faults: list[str] = []

    async def client(made: Iterator[tuple[int, tuple[bytes, bool]]]) -> None:
        for number, (data, owed) in made:
            reply = await exchange(port, data, shut=not owed and number % 2 == 0)
            while reply.status == 429:  # the queue is full: the request itself was not looked at
                await asyncio.sleep(0.1)
                reply = await exchange(port, data)
            statuses[reply.status] += 1
            fault = fault_of(reply, owed)
            if fault is not None:
                faults.append(f"request {number}: {fault}")

    for start in range(0, count, BLOCK):
        # Made before any of them is sent: on a busy machine a connection would wait for its request beyond the server's patience.
        numbers = range(start, min(start + BLOCK, count))
        made = iter([(number, hostile_request(number)) for number in numbers])
        await asyncio.gather(*(client(made) for _ in range(at_once)))
        progress(numbers.stop)
    return statuses, faults


def main(arguments: list[str]) -> int:
    """Run the campaign."""
    count = int(arguments[0]) if arguments else 10_000
    ask = post_bytes(PATHS[0], {"messages": [{"role": "user", "content": "what is a rabbit?"}], "max_tokens": 16})
    with ServerProcess("--threads", 1, "--receive-seconds", RECEIVE_SECONDS) as server:
        wanted = asyncio.run(exchange(server.port, ask)).json["choices"]
        begun, memory = time.monotonic(), server.megabytes
        statuses, faults = asyncio.run(
            send_all(server.port, count, progress=lambda done: print(done, end="\r", flush=True))
        )
        seconds = time.monotonic() - begun
        if asyncio.run(exchange(server.port, ask)).json["choices"] != wanted:
            faults.append("a valid request is answered otherwise than before")
        grown = server.megabytes - memory
        server.terminate()
        if (code := server.finish()) != 0:
            faults.append(f"the server ended with code {code}")
    faults += [line for line in server.said if "Traceback" in line or "Error" in line]
    print(
        f"{count} requests in {seconds:.0f} s, statuses {dict(sorted(statuses.items()))} (0: closed without an answer)"
    )
    print(f"memory grew by {grown:.0f} MiB; the server said last: {server.said[-1]}")
    print(f"{len(faults)} faults", *faults[:20], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
