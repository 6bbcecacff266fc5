"""``semhitok serve`` before it serves: options, the extra, and what it passes on."""

from __future__ import annotations

import pytest

from semhitok.cli import serve


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port must lie in [0, 65536), got 70000"),
        (["--queue-size", "-1"], "queue_size must be at least 0, got -1"),
        (["--max-seconds", "nan"], "max_seconds must be at least 1, got nan"),
    ],
)
def test_bad_options(run, options, message):
    pytest.importorskip("fastapi", reason="the extra server is not installed")
    outcome = run("serve", *options)
    assert (outcome.code, message in outcome.err) == (2, True)


def test_without_the_extra(run, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    outcome = run("serve")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "serving needs uvicorn, which the extra server installs: semhitok[server]" in outcome.err


def test_a_checkpoint_is_served_under_its_name(run, checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("fastapi", reason="the extra server is not installed")
    from semhitok.server import running

    served = []
    monkeypatch.setattr(running, "run_server", lambda *arguments: served.append(arguments))
    tokens = tmp_path / "tokens"
    tokens.write_text("secret")
    assert run("serve", checkpoint, "--tokens-file", tokens, "--port", 0, "--max-pixels", 99).code == 0
    ((state, found, host, port),) = served
    assert (state.name, state.model.language, state.limits.max_pixels) == ("tiny", None, 99)
    assert (found.required, host, port) == (True, "127.0.0.1", 0)
    outcome = run("serve", checkpoint, "--tokens-file", tmp_path / "nosuch")
    assert (outcome.code, "the tokens cannot be read" in outcome.err) == (1, True)
