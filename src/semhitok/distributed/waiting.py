"""Waiting for other ranks through the store of the process group: for as long as it takes, unlike in a collective.

A collective ends with an error after a timeout. While one rank tokenizes, evaluates or writes for longer, the others wait here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch.distributed as dist
from torch.distributed import distributed_c10d

from semhitok.distributed.processes import is_distributed, is_main, rank, world_size

TOLD = "told"
"""Key that exists once a rank has said why it ends."""

LONGEST_PAUSE = 0.2  # seconds between two looks into the store; the first ones follow each other faster
_FAILED = "failed"
_meetings = itertools.count()


class OtherRankError(ValueError):
    """Another rank ended with an error, which it reports itself."""


def shared_store() -> dist.Store:
    """The store of the process group, under a prefix of our own."""
    return dist.PrefixStore("semhitok", distributed_c10d._get_default_store())


def from_main(number: int) -> int:
    """The main rank's number, on every rank. Every rank must call it; only the main one does not wait."""
    return int(_text_from_main(str(number))) if is_distributed() else number


def main_decides(decide: Callable[[], int]) -> int:
    """What ``decide`` returns on the main rank, which alone calls it, on every rank. Every rank must call it.

    For whatever depends on files, which ranks may see at different times, and for work that one rank does for all.

    Raises:
        OtherRankError: on the other ranks, where ``decide`` failed on the main one; that one raises the error itself.
    """
    if not is_distributed():
        return decide()
    if not is_main():
        found = _text_from_main()
        if found == _FAILED:
            raise OtherRankError("the main rank stopped with an error")
        return int(found)
    try:
        found = int(decide())
    except Exception:
        _text_from_main(_FAILED)
        raise
    return int(_text_from_main(str(found)))


def wait_for_main() -> None:
    """Wait until the main rank calls this, too: what it did before is done, files that it wrote can be read."""
    from_main(0)


def wait_for_all() -> None:
    """Wait until every rank calls this: before collectives that ranks reach at very different times."""
    if not is_distributed():
        return
    store, meeting = shared_store(), next(_meetings)
    store.set(f"{meeting}/{rank()}", "")
    _wait_for(store, [f"{meeting}/{each}" for each in range(world_size())])


def _text_from_main(text: str = "") -> str:
    store, key = shared_store(), str(next(_meetings))
    if is_main():
        store.set(key, text)
        return text
    _wait_for(store, [key])
    return store.get(key).decode()


def _wait_for(store: dist.Store, keys: Sequence[str]) -> None:
    pause = 0.001
    while not store.check(list(keys)):
        if store.check([TOLD]):
            raise OtherRankError("another rank stopped with an error")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
