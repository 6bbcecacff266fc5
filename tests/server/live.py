"""A server in a thread of this process, and requests without any client library."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.served import Reply
from PIL import Image
from tests.mllm.tiny_mllm import TEXT_SIZE, WORDS, mllm
from tests.tiny import tiny_images
from transformers import PreTrainedTokenizerFast

from semhitok.inference.served_model import ServedModel
from semhitok.mllm import SemHiTokMLLMProcessor
from semhitok.server.running import Server, listen
from semhitok.server.settings import BearerTokens, Limits
from semhitok.server.state import State
from tokenizers import Tokenizer, models, pre_tokenizers

NAME = "tiny"


class Answer(Reply):
    """A response that may be an error."""

    @property
    def error(self) -> dict[str, Any]:
        """The error, whose shape is checked."""
        (error,) = self.json.values()
        assert list(self.json) == ["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        assert "Traceback" not in error["message"]
        return error


@dataclass(frozen=True)
class Live:
    """A server that runs."""

    state: State
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, value: Any, **headers: str) -> Answer:
        return self.send("POST", path, json.dumps(value).encode(), **{"content_type": "application/json"} | headers)


def tiny_served(**options: Any) -> ServedModel:
    """Every id is a word, and none ends an answer."""
    model = mllm()
    model.generation_config.eos_token_id = None
    words = ["<pad>", "<unk>", *WORDS]
    words += [f"word{place}" for place in range(TEXT_SIZE - len(words))]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    text_tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    processor = SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer)
    return ServedModel(model.image_tokenizer, (model, processor), **{"max_pixels": 1_000_000} | options)


@contextmanager
def serving(model: ServedModel, *tokens: str, name: str = NAME, **limits: Any) -> Iterator[Live]:
    """A server on a free port; ends in order."""
    state, listening = State.of(name, model, Limits(**limits)), listen("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(state, BearerTokens(tokens), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield Live(state, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()
    assert not state.engine.is_alive
    assert state.admission.held == 0


def png(seed: int = 0, size: int = 32) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tiny_images(1, seed, size)[0].permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def eventually(condition: Any, seconds: float = 10.0) -> bool:
    """Whether something becomes true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())
