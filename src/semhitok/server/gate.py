"""Before any endpoint: bearer tokens, the number of open requests, and metrics."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semhitok.server.errors import DENIED, ApiError, busy
from semhitok.server.metrics import Metrics
from semhitok.server.settings import BearerTokens

OPEN_TO_ALL = "/health"


class Gate:
    """ASGI middleware.

    Args:
        app: the application.
        tokens: of clients; all paths but ``/health`` need one, if there are any.
        max_open: requests at the same time.
        metrics: receives counts and times.
        paths: of the endpoints, for the labels of the metrics.
    """

    def __init__(
        self, app: ASGIApp, *, tokens: BearerTokens, max_open: int, metrics: Metrics, paths: frozenset[str]
    ) -> None:
        self.app, self.tokens, self.max_open, self.metrics, self.paths = app, tokens, max_open, metrics, paths
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 499

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.open += 1
        try:
            refused = self._refusal(scope)
            await (self.app if refused is None else refused.response())(scope, receive, noting)
        finally:
            self.open -= 1
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if self.open > self.max_open:
            return busy(1, f"more than {self.max_open} requests are open at the same time")
        if scope["path"] != OPEN_TO_ALL and not self.tokens.accept(dict(scope["headers"]).get(b"authorization")):
            message = "a valid token is needed: send the header Authorization: Bearer TOKEN"
            headers = {"WWW-Authenticate": "Bearer"}
            return ApiError(401, message, kind=DENIED, code="invalid_api_key", headers=headers)
        return None
