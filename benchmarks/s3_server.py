"""An S3 server on loopback (moto) whose requests for tars can be made to fail or to stall."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from semhitok.storage.objects import _filesystems

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
SILENCE = 60.0  # seconds for which a stalled request gets no answer


class Faults:
    """A WSGI application that refuses some requests for tars, leaves some without an answer, and refuses all while it is away."""

    def __init__(self, application: Any) -> None:
        self.application, self.failing, self.stalling, self.away_until = application, 0.0, 0.0, 0.0
        self.requests = self.refused = self.stalled = 0
        self._random = random.Random(0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/faults":
            return self._set(environ["QUERY_STRING"], start_response)
        tar = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".tar")
        self.requests += tar
        drawn = self._random.random() if tar else 1.0
        if drawn < self.stalling:
            self.stalled += 1
            time.sleep(SILENCE)
        if time.monotonic() < self.away_until or drawn < self.failing + self.stalling:
            self.refused += drawn >= self.stalling
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.application(environ, start_response)

    def _set(self, query: str, start_response: Any) -> list[bytes]:
        self.failing, self.stalling, away = (float(part) for part in query.split(","))
        self.away_until = time.monotonic() + away
        counts = {"requests": self.requests, "refused": self.refused, "stalled": self.stalled}
        body = json.dumps(counts).encode()
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


def set_faults(server: str, failing: float, stalling: float, away: float = 0.0) -> dict[str, int]:
    """Refuse a share of the requests for tars, stall another, and refuse everything for some seconds; returns the counts so far."""
    import urllib.request

    with urllib.request.urlopen(f"{server}/faults?{failing},{stalling},{away}") as answer:
        return json.loads(answer.read())
