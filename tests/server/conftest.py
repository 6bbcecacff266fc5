"""Live servers in this process, over a tiny model."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra server is not installed")
pytest.importorskip("uvicorn", reason="the extra server is not installed")
pytest.importorskip("prometheus_client", reason="the extra server is not installed")

from collections.abc import Iterator

from tests.server.live import Live, serving, tiny_served


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """A server for all tests that do not need one of their own."""
    with serving(tiny_served()) as server:
        yield server
