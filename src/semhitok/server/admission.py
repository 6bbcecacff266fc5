"""How many requests are accepted at once; the rest is asked to come back later."""

from __future__ import annotations

import math
import time

from semhitok.server.errors import ApiError, busy

SMOOTHING = 0.9
LONGEST_WAIT = 60


class Admission:
    """Counts accepted requests; used by one event loop.

    Args:
        capacity: pieces of work that may be accepted at once: an answer, an image, or a request with images to tokenize.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self.accepted, self.answered = 0, 0
        self.closed = False
        self._seconds_each = 0.1

    def enter(self, pieces: int = 1) -> Ticket:
        """Accept a request.

        Args:
            pieces: of work that it holds.

        Raises:
            ApiError: 400 if there never is room for it, 429 if there is none now, 503 while the server ends.
        """
        if pieces > self.capacity:
            message = f"{pieces} images at once are more than the {self.capacity} that the server accepts"
            raise ApiError(400, message, param="n", code="too_many_images")
        if self.closed:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "5"})
        if self.held + pieces > self.capacity:
            seconds = math.ceil(self.held * self._seconds_each)
            raise busy(max(1, min(seconds, LONGEST_WAIT)), f"the queue of {self.capacity} requests is full")
        self.held += pieces
        self.accepted += 1
        return Ticket(self, pieces)

    def leave(self, pieces: int, seconds: float) -> None:
        """Release what a request held, which took so long when as many were held as now."""
        each = seconds / max(1, self.held)
        self._seconds_each = SMOOTHING * self._seconds_each + (1 - SMOOTHING) * each
        self.held -= pieces


class Ticket:
    """An accepted request."""

    def __init__(self, admission: Admission, pieces: int) -> None:
        self._admission, self._pieces = admission, pieces
        self._answered = False
        self._begun = time.monotonic()

    def answered(self) -> None:
        """The request was answered in full, or its client has gone; further calls have no effect."""
        self._admission.answered += not self._answered
        self._answered = True

    def release(self) -> None:
        """Leave the place to another request, as no more is computed for this one; further calls have no effect."""
        if self._pieces:
            self._admission.leave(self._pieces, time.monotonic() - self._begun)
            self._pieces = 0
