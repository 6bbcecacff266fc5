"""A server in a process of its own, and a client that costs little: plain HTTP over asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = "import sys; from semhitok.cli import main; sys.exit(main())"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """``semhitok serve`` on a free port; what it says is kept.

    Args:
        arguments: of the command.
    """

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-c", COMMAND, "serve", "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(120) or not self.said or "serving" not in self.said[-1]:
            raise RuntimeError(f"the server did not start: {' '.join(self.said)}")
        self.port = int(re.findall(r":(\d+),", self.said[-1])[0])

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def finish(self, seconds: float = 60) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if "serving" in line:
                self._ready.set()
        self._ready.set()


@dataclass(frozen=True)
class Reply:
    """A response; status 0 if the connection was closed without one, or in the midst of one."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


LOST = Reply(0, {}, b"")


def request_bytes(path: str, body: bytes, method: str = "POST", **headers: str) -> bytes:
    """A request as it is sent."""
    fields = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def post_bytes(path: str, value: Any) -> bytes:
    """A request with a JSON body."""
    return request_bytes(path, json.dumps(value).encode())


async def exchange(port: int, data: bytes, *, pause: float = 0.0, shut: bool = False) -> Reply:
    """Send bytes on a connection of its own, and read what is answered.

    Args:
        port: of the server on this machine.
        data: what is sent.
        pause: seconds between the parts in which the answer is read.
        shut: nothing follows the bytes.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    except OSError:
        return LOST
    try:
        writer.write(data)
        if shut:
            writer.write_eof()
        return await _read_reply(reader, pause)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return LOST
    finally:
        writer.transport.abort()


async def _read_reply(reader: asyncio.StreamReader, pause: float) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
    parts: list[bytes] = []
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size + 2))
            parts[-1] = parts[-1][:-2]
            await asyncio.sleep(pause)
        await reader.readline()
    else:
        left = int(headers.get("content-length", "0"))
        while left:
            parts.append(await reader.readexactly(min(left, 4096 if pause else left)))
            left -= len(parts[-1])
            await asyncio.sleep(pause)
    return Reply(int(head[0].split()[1]), headers, b"".join(parts))
