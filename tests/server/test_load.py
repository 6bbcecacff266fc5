"""A full queue, clients that go away or read slowly, time limits, and the end of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.server.live import NAME, Answer, Live, eventually, serving, tiny_served

from semhitok.server import running
from semhitok.server.settings import BearerTokens, Limits
from semhitok.server.state import State

CHAT = "/v1/chat/completions"


def body(tokens: int, **options: Any) -> dict:
    return {"messages": [{"role": "user", "content": "a red cat"}], "max_tokens": tokens} | options


def open_request(live: Live, value: Any) -> socket.socket:
    """A connection on which a request was sent, and nothing read."""
    data = json.dumps(value).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", live.port))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


class Slow:
    """Makes a step of the running batch take some time."""

    def __init__(self, live: Live, seconds: float) -> None:
        step = live.state.engine.batch.step
        self.steps = 0

        def slow() -> None:
            self.steps += 1
            time.sleep(seconds)
            step()

        live.state.engine.batch.step = slow


def test_a_full_queue_is_429_and_nothing_else():
    with serving(tiny_served(), batch_size=2, queue_size=3) as live:
        Slow(live, 0.01)
        (wanted,) = {live.post(CHAT, body(12)).json["choices"][0]["message"]["content"]}
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: live.post(CHAT, body(12)), range(12)))
        assert {answer.status for answer in answers} == {200, 429}
        assert 5 <= sum(answer.status == 200 for answer in answers) < 12
        for answer in answers:
            if answer.status == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert (answer.error["type"], answer.error["code"]) == ("rate_limit_error", "queue_full")
            else:
                assert answer.json["choices"][0]["message"]["content"] == wanted
        more = live.post("/v1/images/generations", {"prompt": "a cat", "n": 6})
        assert (more.status, more.error["code"]) == (400, "too_many_images"), "there is never room for it"
        assert live.post("/v1/images/generations", {"prompt": "a cat", "n": 5}).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_computation(stream):
    with serving(tiny_served()) as live:
        slow = Slow(live, 0.01)
        gone, stays = open_request(live, body(130, stream=stream)), open_request(live, body(40, stream=True))
        assert eventually(lambda: len(live.state.engine._running) == 2 and slow.steps > 3)
        gone.close()
        assert eventually(lambda: len(live.state.engine._running) == 1, 2)
        steps = slow.steps
        assert steps < 60
        assert eventually(lambda: live.state.admission.held == 0)
        assert slow.steps < 60, "the other one was finished, no more"
        stays.settimeout(10)
        text = b""
        while not text.endswith(b"\r\n0\r\n\r\n"):
            text += stays.recv(65536)
        assert b"[DONE]" in text
        stays.close()
        assert live.state.metrics.cancelled._value.get() == 1


def test_a_slow_reader_does_not_stall_others():
    with serving(tiny_served(), batch_size=2, queue_size=0) as live:
        readers = [open_request(live, body(140, stream=True)) for _ in range(2)]
        assert eventually(lambda: live.state.admission.accepted == 2 and live.state.admission.held == 0)
        assert live.post(CHAT, body(5)).status == 200
        for reader in readers:
            reader.close()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long(stream):
    with serving(tiny_served(), max_seconds=1) as live:
        Slow(live, 0.05)
        answer = live.post(CHAT, body(130, stream=stream))
        assert eventually(lambda: not live.state.engine._running, 2)
        if stream:
            last = answer.body.decode().strip().splitlines()[-1]
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            assert answer.status == 408
            error = answer.error
        assert (error["code"], error["message"]) == ("timeout", "the answer was not complete after 1 s")


def test_sigterm_finishes_what_was_accepted(monkeypatch):
    state = State.of(NAME, tiny_served(), Limits(batch_size=2, queue_size=20))
    live, said = Live(state, 0), list[str]()
    Slow(live, 0.01)
    monkeypatch.setattr(running, "_say", said.append)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]

    def drive() -> list[Answer]:
        assert eventually(lambda: said)
        address = Live(state, int(said[0].split("127.0.0.1:")[1].split(",")[0]))
        with ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(address.post, CHAT, body(20, stream=bool(place % 2))) for place in range(6)]
            assert eventually(lambda: state.admission.held == 6)
            os.kill(os.getpid(), signal.SIGTERM)
            answers = [each.result() for each in waiting]
        with pytest.raises(OSError, match="refused"):
            address.get("/health")
        return answers

    with ThreadPoolExecutor(1) as driver:
        driving = driver.submit(drive)
        running.run_server(state, BearerTokens(), "127.0.0.1", 0)  # signals reach the main thread alone
        answers = driving.result()
    assert [answer.status for answer in answers] == [200] * 6
    assert all(answer.json["usage"]["completion_tokens"] == 20 for answer in answers[::2])
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers[1::2])
    assert said[-1] == "finished, 6 of 6 accepted requests were answered"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert not state.engine.is_alive


def test_addresses():
    with pytest.raises(ValueError, match=r"cannot listen at 127\.0\.0\.1 port 70000"):
        running.listen("127.0.0.1", 70000)
    with running.listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="in use"):
        running.listen("127.0.0.1", taken.getsockname()[1])
    assert [running.is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]
