"""``semhitok studio``: what it says before a page opens. The page itself: tests/studio/test_page.py."""

from __future__ import annotations

import builtins
import sys

import pytest


def test_without_gradio_the_extra_is_named(run, monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return plain(name, *arguments, **options)

    for module in [name for name in sys.modules if name.partition(".")[0] == "gradio" or "semhitok.studio" in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    outcome = run("studio", "--port", "0")
    assert outcome.code == 1
    assert outcome.err == "semhitok studio: the studio needs Gradio: install it with `pip install 'semhitok[studio]'`\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--port", "99999"], 2, "--port must be 0 to 65535, got 99999"),
        (["--images", "nosuch"], 1, "--images: there is no folder nosuch"),
        (["--results", "nosuch"], 1, "--results: there is no folder nosuch"),
        (["--model", "./nosuch"], 1, "no checkpoint at ./nosuch"),
    ],
)
def test_bad_options_are_a_sentence(run, arguments, code, sentence):
    outcome = run("studio", *arguments)
    assert outcome.code == code
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
