"""Help: every option is on the page of its command, with a description, in lines that fit a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from semhitok.cli import (
    chat,
    codes,
    compare,
    data,
    decode,
    encode,
    evaluate,
    evaluate_mllm,
    export,
    generate,
    inspect,
    plan,
    pretokenize,
    reconstruct,
    rfid,
    serve,
    studio,
    train,
)
from semhitok.recipes import RECIPES, UNITOK_RECIPES
from semhitok.types import STAGES

PAGES = {
    "reconstruct": reconstruct.Arguments,
    "encode": encode.Arguments,
    "decode": decode.Arguments,
    "pretokenize": pretokenize.Arguments,
    "chat": chat.Arguments,
    "generate": generate.Arguments,
    "evaluate-mllm": evaluate_mllm.Arguments,
    "serve": serve.Arguments,
    "codes": codes.Arguments,
    "studio": studio.Arguments,
    "inspect": inspect.Arguments,
    "plan": plan.Arguments,
    "evaluate": evaluate.Arguments,
    "rfid": rfid.Arguments,
    "compare": compare.Arguments,
    "export": export.Arguments,
    "data fetch": data.Fetch,
    "data scenes": data.Scenes,
    "data index": data.Index,
    "train nano": train.Run,
    "train unitok_nano": train.Run,
}

BOX = ("│", "╭", "╰", " ")  # blanks where the output is not UTF-8


def option_names(kind: type) -> list[str]:
    """The options of a command, also those that it shares with others as a part of its own."""
    hints, plain = get_type_hints(kind, include_extras=True), get_type_hints(kind)
    names: list[str] = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(plain[field.name]):
            names += option_names(plain[field.name])
        elif "Positional" not in repr(hints[field.name]):
            names.append(field.name)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_every_option_is_described(run, page):
    kind = PAGES[page]
    outcome = run(*page.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    text = " ".join(outcome.out.split())
    assert kind.__doc__.splitlines()[0].rstrip(".") in text or page.startswith("train ")
    for name in option_names(kind):
        assert f"--{name.replace('_', '-')}" in text
    assert "None" not in text
    assert "``" not in text


@pytest.mark.parametrize("page", PAGES)
def test_boxes_fit_a_terminal(run, page):
    lines = run(*page.split(), "--help").out.splitlines()
    assert max(len(line) for line in lines if line.startswith(BOX)) <= 80


def test_data_lists_its_commands(run):
    text = run("data", "--help").out
    assert "fetch" in text
    assert "scenes" in text
    assert len(text.splitlines()) < 20


def test_train_lists_the_recipes(run):
    outcome = run("train", "--help")
    assert outcome.code == 0
    assert all(f"• {name}" in outcome.out for name in RECIPES | UNITOK_RECIPES)


def test_the_page_of_a_recipe_is_short_and_says_what_it_is(run):
    text = run("train", "nano", "--help").out
    assert len(text.splitlines()) < 46
    assert "64 px, 8 x 8 tokens, 1,024 x 8 codes" in text
    assert all(f"  {stage} " in text for stage in STAGES)
    assert "--help-all" in text
    assert "--pixel.task.precision" not in text


@pytest.mark.parametrize("recipe", [RECIPES["nano"], UNITOK_RECIPES["unitok_nano"]])
def test_every_value_of_a_recipe_is_an_option(run, recipe):
    text = run("train", recipe.__name__, "--help-all").out
    assert all(f"--{name}" in text for name in _leaves(recipe()))
    assert "--max-seconds" in text


def _leaves(value: Any, name: str = "") -> Iterator[str]:
    prefix = f"{name}." if name else ""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), f"{prefix}{field.name}")
    elif isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], f"{prefix}{key}")
    else:
        yield name.replace("_", "-")


@pytest.mark.parametrize("page", [page for page, kind in PAGES.items() if "device" in get_type_hints(kind)])
def test_a_device_may_be_the_number_of_a_gpu(run, page):
    assert "the number of a GPU" in " ".join(run(*page.split(), "--help").out.replace("│", " ").split())
