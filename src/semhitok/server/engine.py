"""One thread that runs the model: answers and images in a running batch, tokenization in batches of its own.

Each round takes what has arrived: generations join as far as there are rows, images are tokenized in one batch and decoded
one by one, and the running batch advances by one token. So nothing waits for the end of anything else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from semhitok.inference.answer_text import AnswerText
from semhitok.inference.served_model import Generation, ServedModel
from semhitok.server.metrics import Metrics

logger = logging.getLogger(__name__)

DECODED_IN_A_ROUND = 4


class EngineError(Exception):
    """The model failed; the log has the details."""


@dataclass(eq=False)
class Running:
    """A generation of a client.

    Attributes:
        generation: what is generated.
        text: of an answer that is wanted piece by piece.
        finished: done when it is complete, or failed.
        pieces: text so far, in pieces; None after the last one.
        cancelled: nobody waits for it any more.
    """

    generation: Generation
    text: AnswerText | None
    finished: asyncio.Future[None]
    pieces: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    cancelled: bool = False

    def cancel(self) -> None:
        """Stop computing it; without effect if it is complete."""
        self.cancelled = True


@dataclass(eq=False)
class _Piece:
    """One image to tokenize or to decode."""

    value: Any
    result: asyncio.Future[Any]


class Engine:
    """Runs a model for the coroutines of one event loop.

    Args:
        model: used by nobody else meanwhile.
        batch_size: generations at once, and images tokenized at once.
        metrics: receives what is counted.
    """

    def __init__(self, model: ServedModel, *, batch_size: int, metrics: Metrics) -> None:
        self.model, self.batch_size, self.metrics = model, batch_size, metrics
        self.batch = None if model.language is None else model.batch(2 * batch_size)
        self._waiting: deque[Running] = deque()
        self._running: dict[Generation, Running] = {}
        self._encodings: deque[_Piece] = deque()
        self._decodings: deque[_Piece] = deque()
        self._wake = threading.Condition()
        self._ended = False
        self._events: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="semhitok-model", daemon=True)

    def start(self) -> None:
        """Start the thread; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish all work, then end the thread."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    @property
    def is_alive(self) -> bool:
        """Whether work is done at all."""
        return self._thread.is_alive()

    def generate(self, generation: Generation, text: AnswerText | None = None) -> Running:
        """Let a checked generation join the running batch; ``text`` is passed on piece by piece."""
        assert self._loop is not None
        running = Running(generation, text, self._loop.create_future())
        # Nobody may be there any more to take note of an error.
        running.finished.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._put(self._waiting, [running])
        return running

    async def encode(self, pixel_values: Sequence[Tensor]) -> Tensor:
        """Ids (I,N) or (I,N,C) of images (3,S,S)."""
        found = await self._gather(self._encodings, pixel_values)
        return torch.stack(found) if found else torch.zeros(0, self.model.image_tokens, dtype=torch.long)

    async def decode(self, ids: Sequence[Tensor], grid: tuple[int, int] | None = None) -> list[Image.Image]:
        """Images of ids (N) or (N,C)."""
        return await self._gather(self._decodings, [(each, grid) for each in ids])

    async def _gather(self, queue: deque[_Piece], values: Sequence[Any]) -> list[Any]:
        assert self._loop is not None
        pieces = [_Piece(value, self._loop.create_future()) for value in values]
        self._put(queue, pieces)
        return list(await asyncio.gather(*(piece.result for piece in pieces)))

    def _put(self, queue: deque[Any], work: Sequence[Any]) -> None:
        with self._wake:
            queue.extend(work)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._running or self._encodings or self._decodings):
                    if self._ended:
                        return
                    self._wake.wait()
            try:
                self._join()
                self._encode()
                self._decode()
                self._step()
            except Exception as error:
                logger.exception("the running batch failed")
                self._abandon(error)
            self._deliver()

    def _join(self) -> None:
        """Drop what was cancelled, and take up what waits as far as there is room."""
        for running in [each for each in self._running.values() if each.cancelled]:
            assert self.batch is not None
            self.batch.remove(running.generation)
            self._leave(running, None)
        joining: list[Running] = []
        while self._waiting and len(self._running) + len(joining) < self.batch_size:
            running = self._waiting.popleft()
            if running.cancelled:
                self._leave(running, None)
            else:
                joining.append(running)
        if joining:
            assert self.batch is not None
            self._running |= {running.generation: running for running in joining}
            self.metrics.tokens.labels("prompt").inc(sum(len(running.generation.prompt) for running in joining))
            self.batch.add([running.generation for running in joining])
            self._pass_on()

    def _encode(self) -> None:
        count = min(self.batch_size, len(self._encodings))
        pieces = [piece for piece in (self._encodings.popleft() for _ in range(count)) if not piece.result.cancelled()]
        if pieces:
            self._settle_all(pieces, lambda values: list(self.model.encode(values)), "tokenized")

    def _decode(self) -> None:
        for _ in range(min(DECODED_IN_A_ROUND, len(self._decodings))):
            piece = self._decodings.popleft()
            self._settle_all([piece], lambda values: [self.model.decode(*values[0])], "decoded")

    def _step(self) -> None:
        if self._running:
            assert self.batch is not None
            self.metrics.rows.observe(self.batch.size - self.batch.free_rows)
            self.batch.step()
            self._pass_on()

    def _pass_on(self) -> None:
        """Pass on new pieces of text; complete generations leave."""
        for running in list(self._running.values()):
            if running.text is not None and (piece := running.text.take()):
                self._events.append(partial(running.pieces.put_nowait, piece))
            if running.generation.done:
                self._leave(running, None)

    def _abandon(self, error: Exception) -> None:
        """All running generations fail; those that wait begin with an empty batch."""
        assert self.batch is not None
        self.batch.clear()
        for running in list(self._running.values()):
            running.text = None
            self._leave(running, error)

    def _leave(self, running: Running, error: Exception | None) -> None:
        generation = running.generation
        self._running.pop(generation, None)
        self.metrics.tokens.labels("generated").inc(len(generation.found))
        if running.cancelled:
            self.metrics.cancelled.inc()
        elif generation.image and generation.done:
            self.metrics.images.labels("generated").inc()
        last = running.text.finish(generation.found) if running.text is not None and generation.done else ""

        def settle() -> None:
            if last:
                running.pieces.put_nowait(last)
            running.pieces.put_nowait(None)
            if not running.finished.done():
                if error is None:
                    running.finished.set_result(None)
                else:
                    running.finished.set_exception(EngineError("the model failed"))

        self._events.append(settle)

    def _settle_all(self, pieces: Sequence[_Piece], compute: Callable[[list[Any]], list[Any]], kind: str) -> None:
        """Results of a batch, or an error for all of it."""
        if all(piece.result.cancelled() for piece in pieces):
            return
        try:
            results: list[Any] = compute([piece.value for piece in pieces])
            self.metrics.images.labels(kind).inc(len(pieces))
        except Exception:
            logger.exception("images could not be %s", kind)
            results = [EngineError("the model failed")] * len(pieces)

        def settle() -> None:
            for piece, result in zip(pieces, results, strict=True):
                if piece.result.done():
                    continue
                if isinstance(result, EngineError):
                    piece.result.set_exception(result)
                else:
                    piece.result.set_result(result)

        self._events.append(settle)

    def _deliver(self) -> None:
        """Hand what happened in this round to the event loop, all at once: each call wakes it."""
        events, self._events = self._events, []
        self.metrics.generations.set(len(self._running))
        if not events:
            return

        def happen() -> None:
            for event in events:
                event()

        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(happen)
        except RuntimeError:  # the loop was closed: nobody waits
            self._ended = True
