"""An error on one rank ends all of them: that rank says why, once, and nobody waits for it in a collective."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from semhitok.distributed.processes import is_distributed, rank
from semhitok.distributed.waiting import TOLD, OtherRankError, give_sign_of_life, shared_store

WATCH_SECONDS = 1.0
_CLAIMED = "claimed"
_watching: tuple[threading.Thread, threading.Event] | None = None


@contextmanager
def ended_together(say: Callable[[Exception], int]) -> Iterator[None]:
    """Within this context an error on one rank ends this process and, within seconds, those of all other ranks.

    The process group is not left in order: a rank that waits in a collective could not take part. A single process is not
    concerned: its errors come through.

    Args:
        say: tells the user about an error, whose message names the rank, and returns the exit code. Only one rank calls it.
    """
    try:
        yield
    except Exception as error:
        if not is_distributed():
            raise
        _end_all(error, say)


def watch_other_ranks() -> None:
    """End this process, wherever it is, soon after another rank has said why it ends (``ended_together``)."""
    global _watching
    if _watching is not None or not is_distributed():
        return
    stop = threading.Event()
    # Not the store itself: the main thread may wait in it for minutes.
    store = shared_store().clone()  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=_watch, args=(store, stop), daemon=True, name="watch other ranks")
    _watching = thread, stop
    give_sign_of_life(store)
    thread.start()


def stop_watching() -> None:
    """End what ``watch_other_ranks`` began: this rank leaves."""
    global _watching
    if _watching is not None:
        thread, stop = _watching
        _watching = None
        stop.set()
        thread.join(5 * WATCH_SECONDS)


def _watch(store: Store, stop: threading.Event) -> None:
    while not stop.wait(WATCH_SECONDS):
        try:
            give_sign_of_life(store)
            failed = store.check([TOLD])
        except RuntimeError:  # the rank that holds the store has left
            return
        if failed:
            _leave(1)


def _end_all(error: Exception, say: Callable[[Exception], int]) -> NoReturn:
    stop_watching()
    code = 1
    try:
        store = shared_store()
        # Another rank has failed, or is about to say so; a lost connection is closed only after that.
        if isinstance(error, OtherRankError):
            others = _is_told(store, 5.0)
        else:
            others = _is_lost_connection(error) and _is_told(store, 1.0)
        if not others and store.add(_CLAIMED, 1) == 1:
            code = say(_explained(error))
            store.set(TOLD, str(rank()))
            time.sleep(2.5 * WATCH_SECONDS)  # this process may hold the store in which the others look
        elif not others:  # the same error on several ranks is reported once
            _is_told(store, 10.0)
    except RuntimeError:  # the rank that held the store is gone
        code = say(_explained(error))
    _leave(code)


def _is_told(store: Store, seconds: float) -> bool:
    """Whether a rank says within this time why it ends."""
    end = time.monotonic() + seconds
    while not store.check([TOLD]):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _explained(error: Exception) -> Exception:
    """The error; in place of one that the backend raises for lost and late ranks, a sentence."""
    if not _is_lost_connection(error):
        return error
    text = " ".join(str(error).split())
    if "timed out" in text.lower() or "timeout" in text.lower():
        reason = "another rank did not answer within the collective timeout: it hangs, or it needs a longer timeout"
    else:
        reason = "the connection to another rank was lost: it was killed, or its machine or network failed"
    return OtherRankError(f"{reason} ({text[:200]})")


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _leave(code: int) -> NoReturn:
    """End at once: other threads may be in collectives that never end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed
            continue
    os._exit(code)
