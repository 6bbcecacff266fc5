"""Chat templates that nobody vouches for: a bound on what rendering one may cost.

transformers renders chat templates in a sandbox, which keeps them from reaching anything, but not from looping for ever or from
writing without end. Here a template is first rendered with counted steps, by the same rules: what ends within the bounds ends
there as well, with the same text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 1_000_000
"""Passes of loops, thirtieths of calls, and the elements and lengths in units of 64 characters of the values that these handle."""
LONGEST = 2**24
"""Characters of a text."""
LARGEST = 2**20
"""Of numbers that a function is given, and bits of those that are computed."""


class CostlyTemplateError(ValueError):
    """A chat template takes too many steps, or makes too long a text or too large a number."""


def check_template(template: str) -> None:
    """Reject what is no chat template, or costs too much before it is rendered.

    Raises:
        ValueError: its syntax is wrong, or it computes constants without end.
    """
    try:
        _compiled(template)
    except (TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"the chat template cannot be read{f', line {line}' if line else ''}: {text}") from error


def check_rendering(template: str, variables: Mapping[str, Any]) -> None:
    """Reject a chat template whose rendering fails or costs too much.

    Args:
        template: the template.
        variables: what transformers gives to it, ``messages`` among them.

    Raises:
        CostlyTemplateError: the bounds of this file are exceeded.
        ValueError: it is no template, or rendering it raises an error.
    """
    check_template(template)
    budget = _Budget()
    token = _budget.set(budget)
    try:
        with told_in_a_sentence():
            for piece in _compiled(template).generate(**variables):
                budget.write(piece)
    finally:
        _budget.reset(token)


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Turn whatever rendering a chat template raises into a ``ValueError`` of one sentence."""
    try:
        yield
    except CostlyTemplateError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the chat template cannot be applied ({type(error).__name__}: {reason})") from error


class _Budget:
    """What is left of a rendering's steps and characters."""

    def __init__(self) -> None:
        self.steps, self.characters = MOST_STEPS, LONGEST
        self.exceeded: CostlyTemplateError | None = None

    def take(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _costly(f"the chat template takes more than {MOST_STEPS} steps for this conversation")

    def write(self, piece: str) -> None:
        self.characters -= len(piece)
        if self.characters < 0:
            raise _costly(f"the chat template writes more than {LONGEST} characters for this conversation")


_budget: ContextVar[_Budget] = ContextVar("budget")


def _costly(message: str) -> CostlyTemplateError:
    """The error, remembered: jinja2 computes constants while it compiles and hides what that raises."""
    error = _budget.get().exceeded = CostlyTemplateError(message)
    return error


def _each(values: Iterable[Any]) -> Iterator[Any]:
    """What a loop runs over, counted."""
    budget = _budget.get()
    for value in values:
        budget.take()
        yield value


def _charged(value: Any) -> Any:
    """A value that was made, or will become text: its length and that of everything in it are charged."""
    budget = _budget.get()
    if isinstance(value, str) and len(value) < 64:
        budget.take()
        return value
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            if len(found) > LONGEST:
                raise _costly(f"the chat template makes a text of more than {LONGEST} characters")
            budget.take(1 + len(found) // 64)
        elif isinstance(found, int) and found.bit_length() > LARGEST:
            raise _costly("the chat template computes a number without end")
        elif isinstance(found, Mapping | list | tuple | set):
            budget.take(1 + len(found))
            waiting += found.values() if isinstance(found, Mapping) else found
    return value


def _check_call(name: str, own: Any, arguments: Sequence[Any]) -> None:
    """Charge what goes into a function, a method of ``own`` or a filter, and refuse what would come out before it is made."""
    for value in (own, *arguments):
        _charged(value)
        if isinstance(value, int) and abs(value) > LARGEST:
            raise _costly(f"the chat template asks {name or 'a function'} for more than {LARGEST} of something")
    texts = [len(value) for value in (own, *arguments) if isinstance(value, str)]
    if name in ("replace", "join", "translate") and len(texts) > 1:
        count = len(own) + 1 if isinstance(own, str | list | tuple) else 1
        _budget.get().take(count * max(texts[1:]) // 64)
    if name in ("format", "%") and isinstance(own, str):
        width = max((len(digits) for digits in "".join(c if c.isdigit() else " " for c in own).split()), default=0)
        if width > 5 or "*" in own:
            raise _costly("the chat template formats something to a width without end")


def _check_product(operator: str, left: Any, right: Any) -> None:
    """Refuse products and powers that are too large, before they are made."""
    power = operator == "**" and isinstance(left, int) and isinstance(right, int)
    if power and left.bit_length() * abs(right) > LARGEST:
        raise _costly("the chat template computes a number without end")
    for several, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(several, str | list | tuple) and isinstance(times, int):
            _budget.get().take(len(several) * max(times, 0) // (64 if isinstance(several, str) else 1))
    if operator == "%" and isinstance(left, str):
        _check_call("%", left, right if isinstance(right, tuple) else (right,))


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of transformers with counted loops, calls, filters, products and joined texts."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=_charged
        )
        self.globals |= {"raise_exception": _raise, "strftime_now": _now, "lipsum": _refuse_lipsum}
        self.globals |= {"_each": _each, "_charged": _charged}
        self.filters["tojson"] = _to_json
        self.filters = {name: _counted(name, each) for name, each in self.filters.items()}

    def call(  # pyright: ignore[reportIncompatibleMethodOverride]  jinja2 names them __self and __obj
        self, context: Context, obj: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if obj is _each or obj is _charged:
            return obj(*args)
        _budget.get().take(30)
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps those that format
        _check_call(getattr(method, "__name__", ""), getattr(method, "__self__", None), (*args, *kwargs.values()))
        return _charged(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:  # pyright: ignore
        _check_product(operator, left, right)
        return _charged(self.binop_table[operator](left, right))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Counting(self).visit(super()._parse(source, name, filename))


class _Counting(NodeTransformer):
    """Counts what loops run over and the length of joined texts, and computes constants within the bounds.

    jinja2 computes them when it compiles a template, also where it never renders them, but in a sandbox no intercepted product.
    """

    def __init__(self, environment: _Environment) -> None:
        self.evaluation = nodes.EvalContext(environment)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  jinja2's name
        self.generic_visit(node)
        node.iter = _call("_each", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802  jinja2's name
        found = self.generic_visit(node)
        return found if isinstance(found, nodes.Const) else _call("_charged", node)

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Visit the children, then replace a constant expression by its value, as the optimizer of jinja2 does."""
        super().generic_visit(node, *args, **kwargs)
        if not isinstance(node, nodes.Expr) or isinstance(node, nodes.Const):
            return node
        try:
            return nodes.Const.from_untrusted(
                self._value(node), lineno=node.lineno, environment=self.evaluation.environment
            )
        except nodes.Impossible:
            return node

    def _value(self, node: nodes.Expr) -> Any:
        if not isinstance(node, nodes.BinExpr) or node.operator not in _Environment.intercepted_binops:
            return _charged(node.as_const(self.evaluation))
        if not isinstance(node.left, nodes.Const) or not isinstance(node.right, nodes.Const):
            raise nodes.Impossible
        left, right = node.left.value, node.right.value
        _check_product(node.operator, left, right)
        try:
            return _charged(_Environment.default_binop_table[node.operator](left, right))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise nodes.Impossible from error


class _Generation(Extension):
    """The tag ``generation`` of transformers, which marks what an assistant says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    budget = _Budget()
    token = _budget.set(budget)
    try:
        compiled = _Environment().from_string(template)
    finally:
        _budget.reset(token)
    if budget.exceeded is not None:
        raise budget.exceeded
    return compiled


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are charged."""

    @wraps(function)  # with jinja2's mark of what it is passed first
    def counted(*args: Any, **kwargs: Any) -> Any:
        passed = [
            each for each in args if not isinstance(each, Context | ImmutableSandboxedEnvironment | nodes.EvalContext)
        ]
        _check_call(name, passed[0] if passed else None, (*passed[1:], *kwargs.values()))
        return _charged(function(*args, **kwargs))

    return counted


def _call(name: str, argument: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), [argument], [], None, None, lineno=argument.lineno)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse_lipsum(*_: Any, **__: Any) -> None:
    raise _costly("the chat template asks for a random text")
