"""How handlers report errors, and which examples are offered; needs Gradio, but no browser."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.studio.pieces import Piece

gradio = pytest.importorskip("gradio", reason="the extra `studio` is not installed")


def test_errors_are_one_escaped_sentence_and_bugs_say_where_to_look():
    from semhitok.studio.parts import in_a_sentence

    def fail(error: Exception) -> None:
        raise error

    def stream(error: Exception):
        yield "first"
        raise error

    for error, sentence, is_bug in (
        (ValueError("no <b>image</b>,\n  really"), "No &lt;b&gt;image&lt;/b&gt;, really.", False),
        (FileNotFoundError("no checkpoint at x"), "No checkpoint at x.", False),
        (
            RuntimeError("[enforce fail] not enough memory: you tried"),
            "The machine has not enough memory for this.",
            False,
        ),
        (KeyError("k"), "Something went wrong here; the terminal says what.", True),
    ):
        with pytest.raises(gradio.Error) as found:
            in_a_sentence(fail)(error)
        assert (found.value.message, found.value.print_exception) == (sentence, is_bug)
        steps = in_a_sentence(stream)(error)
        assert next(steps) == "first"
        with pytest.raises(gradio.Error):
            next(steps)


def test_unreadable_examples_are_left_out(pictures: Path, tmp_path: Path):
    from semhitok.studio.parts import examples, thumbnails

    (tmp_path / "odd.png").write_bytes(b"no image")
    files = [tmp_path / "odd.png", *sorted(pictures.glob("*.png"))]
    assert examples(files) == files[1:]
    buttons = Piece(thumbnails(files[1:], "Examples")).all("button")
    assert [button["data-pick"] for button in buttons] == [str(file) for file in files[1:]]
    assert [button["aria-label"] for button in buttons] == ["000", "001", "002", "003", "004"]


def test_a_taken_port_is_a_sentence(workspace):
    from semhitok.studio.serving import launch

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot be served at 127.0.0.1:{port}: Address already in use; choose"):
            launch(workspace, port=port)
