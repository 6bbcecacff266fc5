"""The text of an answer while its ids arrive: pieces that later ids cannot change, up to the first stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from semhitok.inference.text_generation import before_stop

INCOMPLETE = "�"
"""What text tokenizers decode an unfinished character to."""


class AnswerText:
    """Grows with the ids of one answer; all pieces together are ``whole``.

    Args:
        decode: ids to text, without special tokens.
        stops: stop strings; an answer ends before the first of them.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, tuple(stops)
        self.stopped = False
        self._text, self._certain = "", ""
        self._given = 0
        # Ids up to ``_read`` are part of the text; those before ``_settled`` do not influence how the next ones are decoded.
        self._settled, self._read = 0, 0

    def read(self, ids: list[int]) -> bool:
        """Take note of the ids, all of them so far; returns whether a stop string ends the answer."""
        before, now = self.decode(ids[self._settled : self._read]), self.decode(ids[self._settled :])
        if len(now) > len(before) and not now.endswith(INCOMPLETE):
            self._text += now[len(before) :]
            self._settled, self._read = self._read, len(ids)
        self.stopped = any(stop in self._text for stop in self.stops)
        certain = before_stop(self._text, self.stops)
        if not self.stopped:
            certain = certain[: len(certain) - self._beginning_of_stop(certain)]
        self._certain = certain.strip()
        return self.stopped

    def take(self) -> str:
        """The next piece of the answer, empty if nothing new is certain."""
        return self._next(self._certain)

    def finish(self, ids: list[int]) -> str:
        """The last piece."""
        return self._next(self.whole(ids))

    def whole(self, ids: list[int]) -> str:
        """The complete answer, without white space around it."""
        return before_stop(self.decode(ids), self.stops).strip()

    def _beginning_of_stop(self, text: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max(map(len, self.stops), default=0)
        lengths = range(min(longest, len(text)), 0, -1)
        return next((size for size in lengths if any(stop.startswith(text[-size:]) for stop in self.stops)), 0)

    def _next(self, text: str) -> str:
        piece, self._given = text[self._given :], max(self._given, len(text))
        return piece
