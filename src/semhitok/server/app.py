"""The application: endpoints and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from semhitok import __version__
from semhitok.server.chat import complete_chat
from semhitok.server.errors import FAULT, UNKNOWN, ApiError, add_handlers, shortened
from semhitok.server.gate import Gate
from semhitok.server.generations import generate_images
from semhitok.server.metrics import CONTENT_TYPE_LATEST
from semhitok.server.schemas import ChatBody, DetokenizeBody, ImageBody, TokenizeBody
from semhitok.server.settings import BearerTokens
from semhitok.server.state import State
from semhitok.server.tokens import BINARY, detokenize, tokenize

Answer = Callable[[State, Request], Awaitable[Response]]


def build_app(state: State, tokens: BearerTokens) -> FastAPI:
    """The application of a server; the model's thread runs from its start to its end.

    Args:
        state: of the server.
        tokens: of clients.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.engine.start()
        yield
        await state.engine.stop()
        state.images.close()

    # Pages that describe the interface would load their scripts from elsewhere; /openapi.json describes it.
    app = FastAPI(title="semhitok", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    add_handlers(app)

    def post(path: str, kind: type[BaseModel], answer: Answer, *binary: str) -> None:
        contents: dict[str, Any] = {"application/json": {"schema": _schema(kind)}}
        contents |= {each: {"schema": {"type": "string", "format": "binary"}} for each in binary}

        async def endpoint(request: Request) -> Response:
            return await answer(state, request)

        about = (answer.__doc__ or "").splitlines()[0]
        extra = {"requestBody": {"required": True, "content": contents}}
        app.add_api_route(
            path, endpoint, methods=["POST"], summary=about, openapi_extra=extra, response_model=None, name=path
        )

    post("/v1/chat/completions", ChatBody, complete_chat)
    post("/v1/images/generations", ImageBody, generate_images)
    post("/v1/tokenize", TokenizeBody, tokenize, BINARY, "image/*")
    post("/v1/detokenize", DetokenizeBody, detokenize, BINARY)

    @app.get("/v1/models", summary="The model of this server.")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_model(state)]})

    @app.get("/v1/models/{name:path}", summary="A model by name.", response_model=None)
    async def model(name: str) -> JSONResponse:
        if name != state.name:
            message = f"there is no model {shortened(name, 100)!r}, this server has {state.name!r}"
            raise ApiError(404, message, kind=UNKNOWN, param="model", code="model_not_found")
        return JSONResponse(_model(state))

    @app.get("/health", summary="Whether the server can work.", response_model=None)
    async def health() -> JSONResponse:
        if not state.engine.is_alive:
            raise ApiError(503, "the thread of the model has ended", kind=FAULT, code="not_ready")
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", summary="Counters for Prometheus.")
    async def metrics() -> Response:
        return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(Gate, tokens=tokens, max_open=state.limits.max_open, metrics=state.metrics, paths=paths)
    return app


def _model(state: State) -> dict[str, Any]:
    return {"id": state.name, "object": "model", "created": state.created, "owned_by": "semhitok"}


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body, with what it refers to in place: the document has no place for parts of single endpoints."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolved(parts[value["$ref"].rpartition("/")[2]])
        return {name: resolved(each) for name, each in value.items() if name != "discriminator"}

    return resolved(schema)
