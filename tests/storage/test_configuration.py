"""Configuration files and arguments that are not what they should be: one sentence that names place and field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest

from semhitok.storage.configuration import DamagedFileError, check_configuration, read_configuration, sentence_about
from semhitok.storage.configuration_fields import checked_fields, in_field


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is not JSON: Expecting value"),
        (b'{"a": ', "config.json is not JSON"),
        (b"\xff\xfe{}", "config.json is not JSON"),
        (b"[" * 100_000, "config.json is not JSON: RecursionError"),
        (b'{"a": ' + b"9" * 5000 + b"}", "config.json is not JSON: Exceeds the limit"),
        (b"{}" + b" " * 2**24, "config.json has more than 16 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_damaged(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=message) as caught:
        read_configuration(tmp_path / "config.json")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null", "NaN"])
def test_a_document_without_fields_is_refused(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json must hold an object of fields, got \w+$"):
        read_configuration(tmp_path / "config.json")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(DamagedFileError, match="is not a regular file"):
        read_configuration(tmp_path / "config.json")


def test_what_libraries_would_repeat_without_end_is_refused_with_its_whole_name():
    nested: Any = {}
    for _ in range(200):
        nested = {"a": nested}
    for name, fields in {
        r"num_hidden_layers must be at most 1048576, got 1000000000": {"num_hidden_layers": 10**9},
        r"a\.b\.stage_depths must be": {"a": {"b": {"stage_depths": [1, 10**9]}}},
        r"num_labels must be at most .*, got a number of more than 20 digits": {"num_labels": 10**30},
        r"is nested more than 64 deep": nested,
    }.items():
        with pytest.raises(ValueError, match=f"^here.*{name}"):
            check_configuration(fields, "here")
    check_configuration(
        {"seed": 2**63, "num_hidden_layers": 80, "layer": -2, "vocab_size": 10**7, "layer_scale": 1e9}, "here"
    )


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError("two\nlines"), RecursionError(), ValueError("a\n b"), ValueError("x")]
)
def test_what_a_library_raises_becomes_one_sentence_about_the_place(error: Exception):
    with pytest.raises(ValueError, match=r"^/the/place cannot be loaded: .") as caught, sentence_about("/the/place"):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ValueError("/the/place is odd"),
        OSError("no"),
    ],
)
def test_lack_of_memory_and_sentences_pass(error: Exception):
    with pytest.raises(type(error)) as caught, sentence_about("/the/place"):
        raise error
    assert caught.value is error


class Checked:
    @checked_fields
    def __init__(
        self,
        count: int = 1,
        rate: float = 0.5,
        name: str = "a",
        kind: Literal["x", "y"] = "x",
        sizes: list[int] | None = None,
        facts: dict[str, Any] | None = None,
        flag: bool = True,
        **kwargs: Any,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.doubled = [2 * size for size in sizes or []]
        self.__dict__.update(kwargs)

    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": "2"}, "count must be a whole number, got '2'"),
        ({"count": True}, "count must be a whole number, got True"),
        ({"rate": float("nan")}, "rate must be a finite number, got nan"),
        ({"rate": 10**400}, "rate must be a finite number"),
        ({"name": ["a"]}, "name must be a text"),
        ({"kind": "z"}, "kind must be one of x, y, got 'z'"),
        ({"kind": []}, "kind must be one of x, y"),
        ({"sizes": 3}, "sizes must be a list, each entry a whole number or null, got 3"),
        ({"sizes": [1, "2"]}, "sizes must be a list"),
        ({"facts": [1]}, "facts must be an object or null"),
        ({"flag": 1}, "flag must be true or false, got 1"),
        ({"method": 3}, "method is not a field of a Checked"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        Checked(**arguments)
    assert "\n" not in str(caught.value)


def test_arguments_as_json_has_them_are_accepted():
    fields = json.loads(
        '{"count": 3, "rate": 1, "kind": "y", "sizes": [1, 2], "facts": {"a": [null]}, "other": {"b": 1}}'
    )
    found = Checked(**fields)
    assert (found.doubled, found.other) == ([2, 4], {"b": 1})  # type: ignore[attr-defined]
    assert Checked(2, 0.25, sizes=(1,)).doubled == [2]  # type: ignore[arg-type]


def test_an_error_in_a_nested_configuration_names_the_outer_field():
    with pytest.raises(ValueError, match=r"^inner: KeyError: 'a'$"), in_field("inner"):
        raise KeyError("a")
