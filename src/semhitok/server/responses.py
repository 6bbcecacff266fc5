"""Answers are sent while the client is there: if it goes, or the time is over, their computation is cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from semhitok.server.admission import Ticket
from semhitok.server.engine import EngineError
from semhitok.server.errors import ApiError, ClientGoneError, internal

ERROR_SECONDS = 1.0
"""Time for the last event of a stream that took too long."""


async def while_connected(
    request: Request, ticket: Ticket, seconds: float, work: Coroutine[Any, Any, Response]
) -> Response:
    """The response that some work makes; an ``EventStream`` takes the ticket over.

    Args:
        request: whose body has been read.
        ticket: of the accepted request.
        seconds: time for the work.
        work: cancelled if the client goes away.

    Raises:
        ApiError: the work was refused, failed (500) or took too long (408).
        ClientGoneError: nobody waits for the response.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(request.receive))
    response: Response | None = None
    try:
        done, _ = await asyncio.wait({working, watching}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            response = working.result()
            return response
        raise ClientGoneError if watching in done else _too_slow(seconds)
    except EngineError:
        raise internal() from None
    finally:
        await _cancelled(working, watching)
        if not isinstance(response, EventStream):
            ticket.answered()
            ticket.release()


class EventStream(Response):
    """Server-sent events, the last of which is ``[DONE]``.

    Args:
        events: JSON values; closed if the client goes away.
        ticket: of the accepted request, which should be released as soon as nothing is computed any more.
        seconds: time for the answer.
        begun: when the request was accepted, by ``time.monotonic``.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Any], ticket: Ticket, seconds: float, begun: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.ticket, self.seconds, self.begun = events, ticket, seconds, begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = self.seconds - (time.monotonic() - self.begun)
        sending = asyncio.create_task(self._send_all(send))
        watching = asyncio.create_task(_disconnected(receive))
        try:
            done, _ = await asyncio.wait({sending, watching}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            self.ticket.answered()
            if sending in done:
                sending.result()
            elif watching not in done:
                await _cancelled(sending)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ERROR_SECONDS):
                        await _send_last(send, _too_slow(self.seconds))
        finally:
            await _cancelled(sending, watching)
            self.ticket.release()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self.events:
                await send({"type": "http.response.body", "body": _event(event), "more_body": True})
        except EngineError:
            await _send_last(send, internal())
            return
        finally:
            await self.events.aclose()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _send_last(send: Send, error: ApiError) -> None:
    await send({"type": "http.response.body", "body": _event(error.body()), "more_body": False})


def _event(value: Any) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _too_slow(seconds: float) -> ApiError:
    return ApiError(408, f"the answer was not complete after {seconds:g} s", code="timeout")


async def _disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until their cleanup is done."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
