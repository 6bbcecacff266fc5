"""From a model to a server that ends in order: on SIGTERM or Ctrl-C it accepts no more, and finishes what it has accepted."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from semhitok.server.app import build_app
from semhitok.server.protocol import protocol_with_deadline
from semhitok.server.settings import BearerTokens
from semhitok.server.state import State

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another one waits; Python's default of 5 ms would stall the model's thread at
each of its operations while requests are parsed."""

CLOSING_SECONDS = 5.0
"""Time for the last answers to be sent, after the time that they may take."""


class Server(uvicorn.Server):
    """A server for one model.

    Args:
        state: of the server.
        tokens: of clients.
        on_start: called when requests are accepted.
    """

    def __init__(
        self, state: State, tokens: BearerTokens | None = None, on_start: Callable[[], None] = lambda: None
    ) -> None:
        self.state, self.on_start = state, on_start
        super().__init__(
            uvicorn.Config(
                build_app(state, tokens or BearerTokens()),
                http=protocol_with_deadline(state.limits.receive_seconds),
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(state.limits.max_seconds + CLOSING_SECONDS),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.state.admission.closed = True
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: the address does not exist or is in use.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host} port {port}: {getattr(error, 'strerror', None) or error}") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run_server(state: State, tokens: BearerTokens, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; says on standard error where, and in the end what was answered.

    Raises:
        ValueError: see ``listen``.
    """
    listening = listen(host, port)
    place = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    server = Server(state, tokens, lambda: _say(f"serving {state.name} at {place}, Ctrl-C ends"))
    if not tokens.required and not is_loopback(host):
        _say("anyone who reaches this address may use the server: no tokens are set")
    earlier = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with _signals_end_in_order():
            server.run(sockets=[listening])
    finally:
        sys.setswitchinterval(earlier)
        listening.close()
    _say(f"finished, {state.admission.answered} of {state.admission.accepted} accepted requests were answered")


@contextmanager
def _signals_end_in_order() -> Iterator[None]:
    """uvicorn raises the signals that it has handled once more in the end, which must not kill the process."""
    earlier = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)


def _say(sentence: str) -> None:
    print(f"semhitok serve: {sentence}", file=sys.stderr, flush=True)
