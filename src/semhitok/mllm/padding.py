"""Rows of ids of equal length: truncation on the right or left, padding on the left, with transformers' names for both."""

from __future__ import annotations

from collections.abc import Sequence

PADDING = {True: "longest", False: "do_not_pad", None: "do_not_pad"}
NO_TRUNCATION = (False, None, "do_not_truncate")
TRUNCATION = (True, "longest_first", "only_first", *NO_TRUNCATION)


def truncate(
    row: Sequence[int], length: int | None, truncation: bool | str | None, *, side: str = "right", placeholder: int
) -> list[int]:
    """The row with at most ``length`` ids.

    Args:
        row: ids of a text, with placeholders for its images.
        length: None for no limit.
        truncation: as in transformers; without it a longer row is an error.
        side: where ids are removed.
        placeholder: the id of which none may be removed.

    Raises:
        ValueError: the row is longer and may not be truncated, or an image would be cut off.
    """
    if truncation not in TRUNCATION:
        raise ValueError(f"truncation must be True or False, got {truncation!r}")
    if length is None or len(row) <= length:
        return list(row)
    if truncation in NO_TRUNCATION:
        raise ValueError(
            f"a text has {len(row)} tokens, max_length is {length}: shorten the text or pass truncation=True"
        )
    start = 0 if side == "right" else len(row) - length
    # The begin or end mark beside a placeholder must be kept as well.
    if placeholder in (row[: start + 1] if start else row[length - 1 :]):
        raise ValueError(f"max_length {length} would cut off an image in a text of {len(row)} tokens")
    return list(row[start : start + length])


def padded_length(
    rows: Sequence[Sequence[int]], padding: bool | str | None, max_length: int | None, context_length: int
) -> int:
    """The length that shorter rows are padded to, 0 for no padding.

    Args:
        rows: ids of texts.
        padding: as in transformers: True or "longest", "max_length", False or "do_not_pad".
        max_length: the length for "max_length"; ``context_length`` by default.
        context_length: number of positions of the language model.

    Raises:
        ValueError: there is no such kind of padding.
    """
    lengths = {"longest": max(map(len, rows), default=0), "max_length": max_length or context_length, "do_not_pad": 0}
    kind = PADDING[padding] if isinstance(padding, bool) or padding is None else str(getattr(padding, "value", padding))
    if kind not in lengths:
        raise ValueError(f"padding must be True, False, longest, max_length or do_not_pad, got {padding!r}")
    return lengths[kind]
