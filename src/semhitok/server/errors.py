"""Every refusal is one sentence, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

INVALID, UNKNOWN, BUSY, FAULT = "invalid_request_error", "not_found_error", "rate_limit_error", "server_error"
DENIED = "authentication_error"


class ApiError(Exception):
    """A refusal.

    Args:
        status: of HTTP.
        message: one sentence: what is wrong, and what would be accepted.
        kind: the type of the error.
        param: the field of the request.
        code: a name for programs.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": fields}

    def response(self) -> JSONResponse:
        """The response that carries it."""
        return JSONResponse(self.body(), self.status, self.headers)


class ClientGoneError(Exception):
    """Nobody is there to answer."""


def busy(seconds: int, what: str) -> ApiError:
    """Too many requests: the client should come back after some seconds."""
    message = f"{what}; try again in {seconds} s"
    return ApiError(429, message, kind=BUSY, code="queue_full", headers={"Retry-After": str(seconds)})


def refusal(error: ValueError, param: str | None = None, code: str | None = None) -> ApiError:
    """A sentence of the package as a refusal."""
    return ApiError(400, shortened(" ".join(str(error).split())), param=param, code=code)


def of_validation(error: ValidationError) -> ApiError:
    """The most specific complaint about a request."""
    # Of several accepted types the one that the request came closest to is named the deepest.
    found = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
    place = ".".join(str(part) for part in found["loc"] if not _names_a_type(part)) or None
    reason = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        reason = "this field is not supported"
    elif found["type"] == "json_invalid":
        return ApiError(400, shortened(f"the body is not JSON: {reason.removeprefix('Invalid JSON: ')}"))
    message = f"{place}: {reason[:1].lower()}{reason[1:]}" if place else reason
    return ApiError(400, shortened(message), param=place)


def shortened(text: str, length: int = 400) -> str:
    """A sentence without the bulk of what it quotes, and without characters that UTF-8 does not have."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= length else f"{text[: length - 3]}..."


def add_handlers(app: FastAPI) -> None:
    """Make every error of the application a refusal in one sentence."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, error: ClientGoneError) -> JSONResponse:
        return ApiError(499, "the client closed the connection").response()

    @app.exception_handler(HTTPException)
    async def of_routing(request: Request, error: HTTPException) -> JSONResponse:
        path = shortened(request.url.path, 100)
        if error.status_code == 405:
            sentence = f"{path} does not accept {shortened(request.method, 20)}"
            return ApiError(405, sentence, code="method_not_allowed", headers=error.headers).response()
        return ApiError(404, f"there is no endpoint {path}", kind=UNKNOWN, code="unknown_url").response()

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        return internal().response()


def internal() -> ApiError:
    """A fault of the server, which its log describes."""
    return ApiError(500, "an internal error occurred; the log of the server has the details", kind=FAULT)


def _names_a_type(part: int | str) -> bool:
    """Whether a part of a place in a request is pydantic's name of an alternative rather than a field."""
    return isinstance(part, str) and (part in ("str", "text", "image_url") or "[" in part)
