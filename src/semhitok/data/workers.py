"""How worker processes end: with the process that started them, whatever ends that."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

WATCH_SECONDS = 1.0


def follow_parent() -> None:
    """In a worker process: exit when its parent has died, even while a read or write blocks.

    A worker would notice by itself only at the end of its pipe, which its siblings hold open.
    """
    threading.Thread(target=_follow, args=(_parent(), False), daemon=True).start()


def outlive_signals(worker: int) -> None:
    """Ctrl-C and job managers signal every process of a job; training still needs batches then, to finish its step.

    So a worker passes over SIGINT, and over a SIGTERM that does not come from the training process itself; it ends with
    that process. Where the sender cannot be told (not on Linux) SIGTERM keeps its usual effect.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    by_sender = hasattr(signal, "sigtimedwait")
    if by_sender:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_follow, args=(_parent(), by_sender), daemon=True).start()


def _parent() -> int:
    """The process whose death ends this one: it may have died before this one began to watch."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or multiprocessing.get_start_method(allow_none=True) == "forkserver":
        return os.getppid()  # the fork server, which dies with its parent
    return parent.pid


def _follow(parent: int, obey_it: bool) -> None:
    while os.getppid() == parent:
        if not obey_it:
            time.sleep(WATCH_SECONDS)
            continue
        received = signal.sigtimedwait({signal.SIGTERM}, WATCH_SECONDS)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)
