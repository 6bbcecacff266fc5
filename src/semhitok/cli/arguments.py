"""Argument types that several commands share; an invalid value is a usage error, exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec


class UsageError(ValueError):
    """Options that contradict each other or name something unknown; one sentence, exit code 2."""


def _count(arguments: list[str]) -> int:
    try:
        number = int(arguments[0])
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"expected a whole number of at least 1, got {arguments[0]!r}")
    return number


def _one_or_more(kind: Callable[[str], Any], what: str) -> PrimitiveConstructorSpec[Any]:
    """Positional arguments of which at least one must be given."""

    def read(arguments: list[str]) -> tuple[Any, ...]:
        if not arguments:
            raise ValueError(f"expected at least one {what}")
        return tuple(map(kind, arguments))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{what.upper()} ...",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(entry) for entry in value],
    )


COUNT: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N",
    instance_from_str=_count,
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)


def default(text: str) -> Any:
    """Text that help shows in place of ``(default: None)``; an empty one hides it."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})" if text else "")


Count = Annotated[int, COUNT]
Limit = Annotated[int | None, COUNT, default("all")]
Device = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: a GPU if available)")]
Checkpoint = Annotated[str, tyro.conf.arg(metavar="CHECKPOINT")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
ImagePaths = Annotated[
    tuple[Path, ...], _one_or_more(Path, "image"), tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(required)")
]
DataPlaces = Annotated[
    tuple[str, ...], _one_or_more(str, "data"), tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(required)")
]
