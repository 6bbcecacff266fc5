"""Pieces of an answer while its ids arrive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhitok.inference.answer_text import AnswerText


def decode(ids: list[int]) -> str:
    """Ids are bytes, as in byte-level BPE."""
    return bytes(ids).decode("utf-8", errors="replace")


def pieces_of(text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool, int]:
    """Pieces, whether a stop string was met, and the number of ids read."""
    ids, answer, pieces = list(text.encode()), AnswerText(decode, stops), []
    count = 0
    for count in range(1, len(ids) + 1):
        stopped = answer.read(ids[:count])
        pieces.append(answer.take())
        if stopped:
            break
    pieces.append(answer.finish(ids[:count]))
    assert "".join(pieces) == answer.whole(ids[:count])
    return [piece for piece in pieces if piece], answer.stopped, count


def test_pieces_are_whole_characters_and_leave_out_white_space_around_the_answer():
    pieces, stopped, _ = pieces_of(" a größe \n\n")
    assert ("".join(pieces), stopped) == ("a größe", False)
    assert {" g", "ö"} <= set(pieces)


def test_nothing_of_a_stop_string_is_given_away():
    pieces, stopped, count = pieces_of("one. STOP two", (" STOP", "###"))
    assert ("".join(pieces), stopped, count) == ("one.", True, len("one. STOP"))
    pieces, stopped, _ = pieces_of("one. STO", (" STOP",))
    assert ("".join(pieces), stopped) == ("one. STO", False)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_answer(text):
    assert pieces_of(text)[0] == []


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_any_text(text, stops):
    pieces, stopped, count = pieces_of(text, tuple(stops))
    read = text.encode()[:count].decode(errors="replace")
    found = [read.find(stop) for stop in stops if stop in read]
    assert "".join(pieces) == (read[: min(found)] if found else read).strip()
    assert stopped == any(stop in text for stop in stops)
