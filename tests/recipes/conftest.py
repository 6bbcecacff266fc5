from __future__ import annotations

from tests.runs.conftest import inputs, one_thread

__all__ = ["inputs", "one_thread"]
