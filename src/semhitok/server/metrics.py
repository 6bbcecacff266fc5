"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def options(name: str, text: str) -> dict:
            return {"name": f"semhitok_{name}", "documentation": text, "registry": self.registry}

        self.requests = Counter(
            **options("requests", "Requests by endpoint and status."), labelnames=("endpoint", "status")
        )
        self.seconds = Histogram(
            **options("request_seconds", "Time from the first line of a request to the end of its answer."),
            labelnames=("endpoint",),
            buckets=SECONDS,
        )
        self.accepted = Gauge(**options("accepted", "Requests that wait or are being worked on."))
        self.generations = Gauge(**options("generations", "Answers and images in the running batch."))
        self.rows = Histogram(
            **options("pass_rows", "Rows of a pass of the language model: images with guidance take two."),
            buckets=ROWS,
        )
        self.tokens = Counter(**options("tokens", "Tokens of prompts and of answers and images."), labelnames=("kind",))
        self.images = Counter(
            **options("images", "Images that were tokenized, decoded from tokens, or generated."), labelnames=("kind",)
        )
        self.cancelled = Counter(**options("cancelled", "Answers and images that nobody waited for any more."))

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
