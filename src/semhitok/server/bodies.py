"""Requests read within limits of bytes and time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from semhitok.server.errors import ApiError, ClientGoneError, busy, of_validation, shortened
from semhitok.server.schemas import Body
from semhitok.server.settings import Limits

_Body = TypeVar("_Body", bound=Body)


class BodyReader:
    """Reads bodies; all that are read at the same time share a budget of bytes.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buffered = 0

    async def read(self, request: Request) -> bytes:
        """The body.

        Raises:
            ApiError: it is too long (413) or too slow (408), or too much is read already (429).
            ClientGoneError: it was cut off.
        """
        limit, parts, size = self.limits.max_bytes, [], 0
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_long(limit)
        try:
            async with asyncio.timeout(self.limits.receive_seconds):
                async for part in request.stream():
                    if size + len(part) > limit:
                        raise _too_long(limit)
                    if self._buffered + len(part) > self.limits.max_buffered:
                        raise busy(1, "too many large requests arrive at the same time")
                    parts.append(part)
                    size += len(part)
                    self._buffered += len(part)
        except TimeoutError:
            seconds = self.limits.receive_seconds
            raise ApiError(408, f"the request did not arrive within {seconds:g} s", code="timeout") from None
        except ClientDisconnect:
            raise ClientGoneError from None
        finally:
            self._buffered -= size
        return b"".join(parts)

    async def json(self, request: Request, kind: type[_Body]) -> _Body:
        """The body as JSON of some kind.

        Raises:
            ApiError: see ``read``; another content type (415), no JSON, or not of this kind (400).
            ClientGoneError: it was cut off.
        """
        # Also keeps pages of other origins from sending requests without asking the browser first.
        if content_type(request) != "application/json":
            given = shortened(request.headers.get("content-type", "nothing"), 80)
            raise ApiError(415, f"the content type must be application/json, got {given}")
        data = await self.read(request)
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise of_validation(error) from None


def content_type(request: Request) -> str:
    """Media type of the body, without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_long(limit: int) -> ApiError:
    return ApiError(413, f"the body of a request may have at most {limit:,} bytes", code="too_large")
