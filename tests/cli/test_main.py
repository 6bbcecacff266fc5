"""The program around the commands: overview, exit codes, interruptions, memory, closed pipes."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import torch
from transformers.utils import logging

import semhitok
from semhitok.cli import COMMANDS, decode, main


def test_overview_names_every_command(run):
    outcome = run("--help")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.out for name in COMMANDS)
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_usage_errors_have_exit_code_2(run, tmp_path):
    assert run().code == 2
    outcome = run("encoed")
    assert outcome.code == 2
    assert "unknown command 'encoed'; choose from" in outcome.err
    assert "encode" in outcome.err
    for arguments in (["encode"], ["encode", tmp_path, "--batch-size", "0"], ["encode", tmp_path, "--nosuch", "1"]):
        outcome = run(*arguments)
        assert outcome.code == 2
        assert outcome.err


def test_version(run):
    assert run("--version").out.strip() == semhitok.__version__


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_out_of_memory_says_what_to_lower(run, monkeypatch, command, error):
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(error))
    outcome = run(command)
    assert outcome.code == 1
    assert outcome.err == f"semhitok {command}: out of memory: {COMMANDS[command].memory}\n"


def test_what_helps_against_lack_of_memory_are_options_of_the_command(run):
    for name, command in COMMANDS.items():
        options = [word.strip(",") for word in command.memory.split() if word.startswith("--")]
        page = {"data": ["scenes", "--help"], "train": ["nano", "--help-all"]}.get(name, ["--help"])
        text = run(name, *page).out
        assert all(option in text for option in options)


class _Failing:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def main(self, arguments: list[str]) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\n  sentence"), "one sentence"),
        (ImportError("needs the extra"), "needs the extra"),
        (OSError(errno.ENOSPC, "No space left on device", "out.png"), "the disk is full, out.png could not be written"),
    ],
)
def test_errors_are_one_sentence(run, monkeypatch, error, said):
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(error))
    outcome = run("decode")
    assert outcome.code == 1
    assert outcome.err == f"semhitok decode: {said}\n"


def test_bugs_keep_their_traceback_and_so_do_errors_on_request(monkeypatch):
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["decode"])
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(ValueError("wrong")))
    monkeypatch.setenv("SEMHITOK_TRACEBACK", "1")
    with pytest.raises(ValueError, match="wrong"):
        main(["decode"])


def test_interruption_is_clean(run, monkeypatch):
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(KeyboardInterrupt()))
    outcome = run("decode")
    assert outcome.code == 130
    assert outcome.err == "\nsemhitok: interrupted\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "nano", "--help-all"]], ids=["short", "long"])
def test_a_reader_that_has_gone_ends_the_program_silently(monkeypatch, capsys, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(arguments) == 141
        pipe.flush()  # the interpreter does that at exit: no complaint any more
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_elsewhere_is_no_silent_end(monkeypatch):
    monkeypatch.setattr("semhitok.cli.import_module", lambda name: _Failing(BrokenPipeError("a worker died")))
    with pytest.raises(BrokenPipeError, match="a worker died"):
        main(["decode"])


def test_bars_of_transformers_are_off_while_a_command_runs(run, monkeypatch):
    seen = []

    def command(arguments: list[str]) -> int:
        seen.append((logging.is_progress_bar_enabled(), logging.get_verbosity()))
        return 0

    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    monkeypatch.setattr(decode, "main", command)
    assert run("decode").code == 0
    assert seen == [(False, logging.ERROR)]
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


def test_closed_standard_streams_are_no_error(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["--help"]) == 0
    assert main(["encoed"]) == 2
    assert sys.stdin.readline() == ""


@pytest.mark.parametrize("arguments", [["--help"], ["decode", "--help"]])
def test_output_that_cannot_be_written_is_one_sentence(monkeypatch, capsys, arguments):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(arguments) == 1
        full.flush()  # the interpreter does that at exit
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert said.splitlines()[-1] == "semhitok: the output cannot be written: No space left on device"
