"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; cells hold no pipes."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def percent(share: float) -> str:
    """0.5 -> 50.0 %."""
    return f"{100 * share:.1f} %"
