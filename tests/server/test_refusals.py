"""Every refusal is one sentence in OpenAI's shape, with the right status."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import pytest
from tests.server.live import Answer, Live, data_url, png, serving, tiny_served

from semhitok.server.settings import BearerTokens, Limits

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
USER = [{"role": "user", "content": "a cat"}]


def part(url: Any) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


REFUSED: dict[str, tuple[str, Any, str]] = {
    "no messages": (CHAT, {}, "messages: field required"),
    "an empty conversation": (CHAT, {"messages": []}, "messages: list should have at least 1 item"),
    "an unknown role": (CHAT, {"messages": [{"role": "user|>", "content": "a"}]}, "messages.0.role: input should be"),
    "no text": (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
    "an unknown part": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image", "path": "/etc/passwd"}]}]},
        "messages.0.content",
    ),
    "an unknown field": (CHAT, {"messages": USER, "tools": []}, "tools: this field is not supported"),
    "a number out of range": (CHAT, {"messages": USER, "temperature": 3}, "temperature: input should be less than"),
    "not a number": (CHAT, {"messages": USER, "top_p": "NaN"}, "top_p"),
    "too many tokens": (CHAT, {"messages": USER, "max_tokens": 1025}, "max_tokens may be at most 1024, got 1025"),
    "no tokens": (CHAT, {"messages": USER, "max_tokens": 0}, "max_tokens: input should be greater than or equal to 1"),
    "several answers": (CHAT, {"messages": USER, "n": 2}, "n: input should be 1"),
    "options without a stream": (CHAT, {"messages": USER, "stream_options": {}}, "stream_options needs stream: true"),
    "too long": (CHAT, {"messages": [{"role": "user", "content": "a " * 200}]}, "longer than|tokens"),
    "nothing said": (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, "JSON"),
    "an address": (CHAT, {"messages": part("HTTP://localhost/a.png")}, "not fetched from the network"),
    "a path": (CHAT, {"messages": part("/etc/passwd")}, "must be a data URL"),
    "a file URL": (CHAT, {"messages": part("file:///etc/passwd")}, "must be a data URL"),
    "bad base64": (CHAT, {"messages": part("data:image/png;base64,???")}, "cannot be decoded"),
    "no image": (CHAT, {"messages": part("data:image/png;base64,AAAA")}, "not an image"),
    "half an image": (CHAT, {"messages": part(data_url(png()[:-30]))}, "truncated or corrupt"),
    "too many pixels": (CHAT, {"messages": part(data_url(png(size=1001)))}, "1001 x 1001 pixels are more than"),
    "too many images": (CHAT, {"messages": part("data:,") * 17}, "at most 16 images, got 17"),
    "no prompt": (IMAGES, {"prompt": ""}, "prompt: string should have at least 1 character"),
    "an empty prompt": (IMAGES, {"prompt": " "}, "the prompt is empty"),
    "another size": (IMAGES, {"prompt": "a cat", "size": "1024x1024"}, "generates images of 32x32"),
    "an address wanted": (IMAGES, {"prompt": "a cat", "response_format": "url"}, "returned as b64_json, got 'url'"),
    "no guidance": (IMAGES, {"prompt": "a cat", "guidance": 0}, "guidance: input should be greater than 0"),
    "too many drawn": (IMAGES, {"prompt": "a cat", "n": 17}, "at most 16 images"),
    "no images": ("/v1/tokenize", {"images": []}, "images: list should have at least 1 item"),
    "ragged ids": ("/v1/detokenize", {"ids": [[1, 2], [3]]}, "equally many tokens"),
    "huge ids": ("/v1/detokenize", {"ids": [[2**70] * 16]}, "below 2|ids"),
    "ids of another shape": ("/v1/detokenize", {"ids": [[[1, 2]] * 16]}, "must have the shape"),
    "a grid that does not fit": ("/v1/detokenize", {"ids": [[1] * 16], "grid": [3, 4]}, "do not fill a grid of 3x4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_values(live: Live, name):
    path, value, message = REFUSED[name]
    answer = live.post(path, value)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert any(each in answer.error["message"] for each in message.split("|")), answer.error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b'{"messages": NaN}', b"\xff\xfe", b'{"messages": "' + b"a" * 3000 + b'"}', b"null"],
)
def test_bad_json(live: Live, body):
    answer = live.send("POST", CHAT, body, content_type="application/json; charset=utf-8")
    assert answer.status == 400
    assert len(answer.error["message"]) <= 400


def test_places_and_kinds(live: Live):
    assert live.get("/v1/nosuch").status == 404
    assert "no endpoint /v1/nosuch" in live.get("/v1/nosuch").error["message"]
    wrong = live.get(CHAT)
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_allowed")
    form = live.send("POST", CHAT, b"{}", content_type="application/x-www-form-urlencoded")
    assert (form.status, "must be application/json, got application/x-www" in form.error["message"]) == (415, True)
    assert live.post(CHAT, {"messages": USER, "model": "\u2028" * 500}).status == 404
    assert live.get("/openapi.json").json["paths"][CHAT]["post"]["requestBody"]["required"]
    assert live.get("/health").json == {"status": "ok"}


def test_user_text_cannot_name_an_image(live: Live):
    answer = live.post(CHAT, {"messages": [{"role": "user", "content": "a <image> cat"}], "max_tokens": 3})
    assert answer.status == 200
    assert answer.json["usage"]["prompt_tokens"] < 16, "text, not the 16 tokens of an image"


def test_metrics_count(live: Live):
    live.post("/v1/tokenize", {"images": [data_url(png())]})
    live.get("/v1/somewhere/else")
    text = live.get("/metrics").body.decode()
    assert 'semhitok_requests_total{endpoint="/v1/tokenize",status="200"}' in text
    assert 'endpoint="other",status="404"' in text
    assert "somewhere" not in text
    assert "semhitok_accepted 0.0" in text


def raw(live: Live, data: bytes, *, shut: bool = False) -> bytes:
    """What is answered to bytes; with ``shut`` nothing follows them."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if answer.partition(b"\r\n\r\n")[2].endswith(b"}"):
                break
        return answer


def parsed(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), {}, body)


def test_limits_of_bytes_time_and_connections():
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with serving(tiny_served(), max_bytes=1000, receive_seconds=1) as live:
        announced = parsed(raw(live, head + b"Content-Length: 1001\r\n\r\n"))
        assert (announced.status, "at most 1,000 bytes" in announced.error["message"]) == (413, True)
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        assert parsed(raw(live, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk)).status == 413
        slow_body = parsed(raw(live, head + b"Content-Length: 10\r\n\r\n{"))
        assert (slow_body.status, slow_body.error["code"]) == (408, "timeout")
        slow_head = parsed(raw(live, head))
        assert (slow_head.status, slow_head.error["code"]) == (408, "timeout")
        assert raw(live, b"") == b""  # closed without a word
        assert parsed(raw(live, b"nonsense\r\n\r\n")).error["message"].startswith("this is not a request of HTTP/1.1")
        assert parsed(raw(live, b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000)).status == 400
        assert raw(live, head + b"Content-Length: 10\r\n\r\n{", shut=True)[:12] in (
            b"",
            b"HTTP/1.1 499",
            b"HTTP/1.1 408",
        )
    with serving(tiny_served(), max_open=1, receive_seconds=5) as live:
        with socket.create_connection(("127.0.0.1", live.port)) as waiting:
            waiting.sendall(head + b"Content-Length: 10\r\n\r\n{")
            second = live.get("/v1/models")
            while second.status == 200:
                second = live.get("/v1/models")
        assert (second.status, second.headers["retry-after"], second.error["type"]) == (429, "1", "rate_limit_error")


def test_bearer_tokens(caplog, capsys):
    with serving(tiny_served(), "first-secret", "second-secret") as live:
        assert live.get("/health").status == 200
        for header in ("", "Bearer", "Bearer wrong", "first-secret", "Basic first-secret", "Bearer first-secret2"):
            for path in ("/v1/models", "/metrics", "/nosuch"):
                answer = live.get(path, authorization=header)
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        for token in ("first-secret", "second-secret"):
            assert live.get("/v1/models", authorization=f"Bearer {token}").status == 200
            assert live.get("/v1/models", authorization=f"bearer  {token}").status == 200
    assert "secret" not in caplog.text + "".join(capsys.readouterr())


def test_where_tokens_come_from(tmp_path, monkeypatch):
    file = tmp_path / "tokens"
    file.write_text("one\n\ntwo\n")
    assert BearerTokens.read(file).accept(b"Bearer two")
    assert not BearerTokens.read(file).accept(None)
    monkeypatch.setenv("SEMHITOK_SERVER_TOKENS", "three, four")
    assert BearerTokens.read(None).accept(b"Bearer four")
    assert not BearerTokens.read(file).accept(b"Bearer four")
    monkeypatch.delenv("SEMHITOK_SERVER_TOKENS")
    assert not BearerTokens.read(None).required
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no tokens"):
        BearerTokens.read(file)
    file.write_text("gr\u00fcn-secret")
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        BearerTokens.read(file)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        BearerTokens.read(tmp_path / "nosuch")


def test_limits_are_checked():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Limits(batch_size=0)
    assert Limits(queue_size=0).capacity == 16


def test_a_fault_is_one_sentence(monkeypatch, caplog):
    with serving(tiny_served()) as live:
        monkeypatch.setattr(type(live.state.model), "encode", lambda *_: 1 / 0)
        answer = live.post("/v1/tokenize", {"images": [base64.b64encode(png()).decode()]})
        assert (answer.status, answer.error["type"]) == (500, "server_error")
        assert "division" not in json.dumps(answer.json)
        monkeypatch.setattr(live.state.engine.batch, "step", lambda: 1 / 0)
        answer = live.post(CHAT, {"messages": USER, "max_tokens": 5})
        assert (answer.status, answer.error["message"].startswith("an internal error")) == (500, True)
        stream = live.post(CHAT, {"messages": USER, "max_tokens": 5, "stream": True})
        assert (
            stream.body.decode().strip().splitlines()[-1].startswith('data: {"error": {"message": "an internal error')
        )
        monkeypatch.undo()
        assert live.post(CHAT, {"messages": USER, "max_tokens": 5}).status == 200
    assert "division by zero" in caplog.text
