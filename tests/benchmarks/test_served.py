"""The short forms of the campaigns against the server; the long ones are in docs/experiments.md."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")

from benchmarks.hostile_requests import fault_of, send_all
from benchmarks.serve_load import Tally, client, content_of
from benchmarks.served import Reply, exchange, post_bytes
from tests.server.live import data_url, png, serving, tiny_served


def test_hostile_requests_are_refused_in_a_sentence():
    with serving(tiny_served(), receive_seconds=3) as live:
        statuses, faults = asyncio.run(send_all(live.port, 200))
    assert not faults
    assert statuses[400] > 80


def test_what_counts_as_a_fault():
    fine = b'{"error": {"message": "no.", "type": "a", "param": null, "code": null}}'
    assert fault_of(Reply(400, {}, fine), True) is None
    for reply in (Reply(500, {}, fine), Reply(0, {}, b""), Reply(400, {}, b"no"), Reply(404, {}, b'{"detail": "a"}')):
        assert fault_of(reply, True)


def test_answers_under_load_are_those_of_single_requests():
    texts = ("a red cat", "the big house is blue and there is a dog", "what")
    bodies = [
        post_bytes(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": text}], "max_tokens": 10 + 5 * place, "stream": place == 1},
        )
        for place, text in enumerate(texts)
    ]
    bodies += [
        post_bytes("/v1/images/generations", {"prompt": "a cat", "seed": 3}),
        post_bytes("/v1/tokenize", {"images": [data_url(png(4))]}),
    ]
    with serving(tiny_served(), batch_size=4, queue_size=2) as live:

        async def run() -> Tally:
            wanted = [(body, content_of(await exchange(live.port, body))) for body in bodies]
            tally, end = Tally(), time.monotonic() + 2
            await asyncio.gather(
                *(
                    client(live.port, wanted, Random(place), tally, lambda: time.monotonic() > end, tidy=False)
                    for place in range(20)
                )
            )
            return tally

        tally = asyncio.run(run())
        admission = live.state.admission
    assert not tally.wrong
    assert set(tally.statuses) == {200, 429}
    assert admission.answered == admission.accepted > 10
