"""Arguments of configurations checked against their annotations, because they come from files that nobody vouches for."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from semhitok.storage.configuration import one_line

Init = TypeVar("Init", bound=Callable[..., None])

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def checked_fields(init: Init) -> Init:
    """Decorate the ``__init__`` of a configuration or a processor: whatever is wrong with its arguments is a ``ValueError``.

    ``init`` has the first word about a field, as its own checks know more than types. An argument of another type than annotated
    is named with what would be accepted. Further keyword arguments may not replace a method.
    """
    parameters = inspect.signature(init)

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        given = parameters.bind(self, *args, **kwargs).arguments
        for name in given.get("kwargs", {}):
            if callable(getattr(type(self), name, None)):
                raise ValueError(f"{name} is not a field of a {type(self).__name__}")
        try:
            init(self, *args, **kwargs)
        except MemoryError:
            raise
        except Exception as error:
            plain, sentence = isinstance(error, ValueError) and "\n" not in str(error), _wrong_type(init, given)
            if sentence is not None and not (plain and sentence.split()[0] in str(error)):
                raise ValueError(sentence) from error
            if plain:
                raise
            raise ValueError(f"a {type(self).__name__} cannot be built: {one_line(error)}") from error
        check_types(init, given)

    return checked  # pyright: ignore[reportReturnType]


@contextmanager
def in_field(name: str) -> Iterator[None]:
    """Whatever goes wrong with a nested configuration is a ``ValueError`` that names its field."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {one_line(error)}") from error


def check_types(init: Callable[..., None], given: Mapping[str, Any]) -> None:
    """Reject arguments of another type than ``init`` annotates.

    Raises:
        ValueError: the message names the first of them and what would be accepted.
    """
    if (sentence := _wrong_type(init, given)) is not None:
        raise ValueError(sentence)


def check_counts(values: Mapping[str, Any]) -> None:
    """Reject fields, by name, that are not whole numbers of at least 1.

    Raises:
        ValueError: the message names the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_choice(name: str, value: Any, accepted: Iterable[str]) -> None:
    """Reject a field that is none of the accepted values.

    Raises:
        ValueError: the message lists them.
    """
    if value not in (accepted := tuple(accepted)):
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")


def _wrong_type(init: Callable[..., None], given: Mapping[str, Any]) -> str | None:
    for name, hint in _hints(init).items():
        if name in given and not _fits(given[name], hint):
            return f"{name} must be {_described(hint)}, got {_repr.repr(given[name])}"
    return None


@cache
def _hints(init: Callable[..., None]) -> dict[str, Any]:
    hints = get_type_hints(init)
    return {name: hint for name, hint in hints.items() if name not in ("return", "kwargs") and hint is not Any}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if hint in (int, float):
        number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return number and (hint is int or _is_finite(value))
    if _is_list(origin):
        return isinstance(value, list | tuple) and all(_fits(each, arguments[0]) for each in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return isinstance(value, hint)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _described(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(each) for each in arguments))
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is dict:
        return "an object"
    if _is_list(origin):
        return f"a list, each entry {_described(arguments[0])}"
    known = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}
    return known.get(hint, f"a {getattr(hint, '__name__', hint)}")
