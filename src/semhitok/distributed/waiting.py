"""Waiting for other ranks through the store of the process group: for as long as it takes, unlike in a collective.

A collective ends with an error after a timeout. While one rank tokenizes, evaluates or writes for longer, the others wait here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from semhitok.distributed.processes import is_distributed, is_main, rank, world_size

TOLD = "told"
"""Key that exists once a rank has said why it ends."""

LONGEST_PAUSE = 0.2  # seconds between two looks into the store; the first ones follow each other faster
SILENCE_SECONDS = 60.0
"""A rank that gives signs of life (``failure.watch_other_ranks``) and then none for so long is lost."""

_FAILED, _TELLS = "failed", "="
_meetings = itertools.count()


class OtherRankError(ValueError):
    """Another rank ended with an error, which it reports itself."""


def shared_store() -> Store:
    """The store of the process group, under a prefix of our own."""
    return PrefixStore("semhitok", _get_default_store())


def from_main(number: int) -> int:
    """The main rank's number, on every rank. Every rank must call it; only the main one does not wait."""
    return int(_text_from_main(str(number))) if is_distributed() else number


def main_decides(decide: Callable[[], int]) -> int:
    """What ``decide`` returns on the main rank, which alone calls it, on every rank. Every rank must call it.

    For whatever depends on files, which ranks may see at different times, and for work that one rank does for all.

    Raises:
        OtherRankError: on the other ranks, where ``decide`` failed on the main one; that one raises the error itself.
    """
    return int(main_tells(lambda: str(int(decide()))))


def main_tells(tell: Callable[[], str]) -> str:
    """As ``main_decides``, for a text."""
    if not is_distributed():
        return tell()
    if not is_main():
        found = _text_from_main()
        if found == _FAILED:
            raise OtherRankError("the main rank stopped with an error")
        return found.removeprefix(_TELLS)
    try:
        found = tell()
    except Exception:
        _text_from_main(_FAILED)
        raise
    _text_from_main(_TELLS + found)
    return found


def wait_for_main() -> None:
    """Wait until the main rank calls this, too: what it did before is done, files that it wrote can be read."""
    from_main(0)


def wait_for_all() -> None:
    """Wait until every rank calls this: before collectives that ranks reach at very different times."""
    if not is_distributed():
        return
    store, meeting = shared_store(), next(_meetings)
    store.set(f"{meeting}/{rank()}", "")
    for each in range(world_size()):
        _wait_for(store, f"{meeting}/{each}", each)


def leave_together() -> None:
    """The last that ranks do together: nobody leaves before all are done, and the main rank, which may hold the store, leaves last."""
    if not is_distributed():
        return
    wait_for_all()
    store, meeting = shared_store(), next(_meetings)
    if not is_main():
        store.set(f"{meeting}/{rank()}", "")  # from here on this rank needs the store no more
        return
    for each in range(1, world_size()):
        _wait_for(store, f"{meeting}/{each}", each)


def _text_from_main(text: str = "") -> str:
    store, key = shared_store(), str(next(_meetings))
    if is_main():
        store.set(key, text)
        return text
    _wait_for(store, key, 0)
    return store.get(key).decode()


def give_sign_of_life(store: Store) -> None:
    """Tell those who wait for this rank that it has not died."""
    store.add(f"alive/{rank()}", 1)


def _wait_for(store: Store, key: str, other: int) -> None:
    """Wait for a key that rank ``other`` sets."""
    pause, signs, heard = 0.001, 0, time.monotonic()
    while not store.check([key]):
        if store.check([TOLD]):
            raise OtherRankError("another rank stopped with an error")
        if (found := store.add(f"alive/{other}", 0)) != signs:
            signs, heard = found, time.monotonic()
        if signs and time.monotonic() - heard > SILENCE_SECONDS:
            raise OtherRankError(
                f"rank {other} has given no sign of life for {SILENCE_SECONDS:g} s: it was killed, or its machine or network failed"
            )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
