"""Connections with a deadline: uvicorn itself waits for the rest of a request for ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from semhitok.server.errors import ApiError

GRACE_SECONDS = 1.0


def protocol_with_deadline(seconds: float) -> type[H11Protocol]:
    """The class of connections on which every request must arrive within some seconds.

    A connection on which nothing is sent at all is closed after the same time. What is not HTTP is refused in the shape of
    other errors.
    """

    class Impatient(H11Protocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._follow()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._follow()

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._refuse(ApiError(400, "this is not a request of HTTP/1.1, or its headers are too long"))
            self.transport.close()

        def _follow(self) -> None:
            """Arm the deadline while a request arrives, and disarm it once it is complete."""
            if self.transport.is_closing() or self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
                self._disarm()
            elif self.deadline is None:
                self._arm()

        def _arm(self) -> None:
            self.deadline = self.loop.call_later(seconds, self._too_late)

        def _disarm(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

        def _too_late(self) -> None:
            self.deadline = None
            if self.transport.is_closing():
                return
            if self.cycle is not None and not self.cycle.response_complete:
                # The application has a deadline of its own for the body, and a sentence to say.
                self.deadline = self.loop.call_later(GRACE_SECONDS, self.transport.close)
                return
            if self.cycle is None and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._refuse(ApiError(408, f"the request did not arrive within {seconds:g} s", code="timeout"))
            self.transport.close()

        def _refuse(self, error: ApiError) -> None:
            body = json.dumps(error.body()).encode()
            head = (
                f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)

    return Impatient
