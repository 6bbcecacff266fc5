"""``semhitok``: the command line. One module per command.

Exit codes: 0; 1 for an error, reported in one sentence; 2 for a usage error; 130 after Ctrl-C; 141 when the reader of the
output has closed the pipe; 143 when training was interrupted and can be resumed.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module

from semhitok import __version__
from semhitok.lazy import after_transformers


@dataclass(frozen=True)
class Command:
    """One command of the program.

    Attributes:
        module: defines ``main(arguments)``; imported when the command runs. It imports neither torch nor transformers
            before the arguments are parsed, so that ``--help`` is fast.
        summary: one line for the overview.
        memory: hint for when memory runs out.
    """

    module: str
    summary: str
    memory: str = "close other programs or use a machine with more memory"


COMMANDS: dict[str, Command] = {
    "reconstruct": Command(
        "semhitok.cli.reconstruct", "send images through a tokenizer and back, and compare", "lower --batch-size"
    ),
    "encode": Command(
        "semhitok.cli.encode", "encode images to token ids (.npy, .json, .safetensors)", "lower --batch-size"
    ),
    "pretokenize": Command(
        "semhitok.cli.pretokenize",
        "encode whole data sets to parquet to train from, on many machines",
        "lower --batch-size",
    ),
    "decode": Command("semhitok.cli.decode", "decode token ids to images", "lower --batch-size"),
    "chat": Command("semhitok.cli.chat", "ask a language model about images, once or in a conversation"),
    "generate": Command(
        "semhitok.cli.generate", "generate images from prompts, or those of a benchmark", "lower --batch-size"
    ),
    "serve": Command("semhitok.cli.serve", "serve a model over HTTP, for OpenAI's clients", "lower --batch-size"),
    "codes": Command(
        "semhitok.cli.codes", "show the patches assigned to semantic codes", "lower --batch-size or --limit"
    ),
    "studio": Command(
        "semhitok.cli.studio", "open a page to see, change, draw and ask: what each token keeps (extra: studio)"
    ),
    "inspect": Command("semhitok.cli.inspect", "describe a checkpoint: stages, sizes, licence, training data"),
    "train": Command(
        "semhitok.cli.train",
        "train a recipe on images, stage by stage, with resume",
        "lower --data.memory-limit, or the batch_size of the stage's loop, or raise its accumulation",
    ),
    "plan": Command("semhitok.cli.plan", "plan a recipe on a number of GPUs: memory, FLOPs, time, data"),
    "evaluate": Command(
        "semhitok.cli.evaluate",
        "measure a tokenizer: reconstruction, codebooks, semantics",
        "lower --batch-size or --limit",
    ),
    "rfid": Command(
        "semhitok.cli.rfid",
        "measure a tokenizer's rFID by a named protocol, on any number of GPUs",
        "lower --batch-size",
    ),
    "evaluate-mllm": Command(
        "semhitok.cli.evaluate_mllm",
        "measure a language model: answers, captions, generated images",
        "lower --batch-size",
    ),
    "ablate": Command(
        "semhitok.cli.ablate", "rerun a table of experiments next to the published values", "lower --test-images"
    ),
    "compare": Command(
        "semhitok.cli.compare",
        "compare checkpoints side by side, or systems trained on equal terms",
        "lower --batch-size, --limit or --test-images",
    ),
    "export": Command("semhitok.cli.export", "write a trained model as a small checkpoint to share"),
    "convert": Command("semhitok.cli.convert", "convert a checkpoint released by others to this package's format"),
    "data": Command(
        "semhitok.cli.data",
        "fetch public pictures and weights, compose scenes, index tars",
        "lower --workers or --size",
    ),
}


def usage() -> str:
    """The overview that ``semhitok --help`` prints."""
    lines = [f"  {name:<14} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: semhitok COMMAND [options]",
            "",
            "Unified image tokenizers: images to discrete tokens and back.",
            "",
            "commands:",
            *lines,
            "",
            "semhitok COMMAND --help describes a command, semhitok --version prints the version.",
            "Set SEMHITOK_TRACEBACK=1 to see the traceback of an error.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nsemhitok: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 141
    except OSError as error:  # those of the command are explained below
        if os.environ.get("SEMHITOK_TRACEBACK"):
            raise
        with suppress(OSError):  # no file behind it
            _discard_output()
        print(f"semhitok: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _prepare_streams() -> None:
    """Closed standard streams (``>&-``) are replaced by the null device; names of files that are not UTF-8 can be printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for the rest of the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"semhitok: unknown command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        command: Callable[[list[str]], int] = import_module(COMMANDS[name].module).main
        with ExitStack() as quiet:
            quiet.callback(after_transformers(lambda: quiet.enter_context(_quiet_transformers())))
            return command(rest)
    except SystemExit as stop:  # tyro, after --help or a usage error
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        raise
    except Exception as error:
        sentence, code = _explain(error, COMMANDS[name])
        if sentence is None or os.environ.get("SEMHITOK_TRACEBACK"):
            raise
        print(f"semhitok {name}: {sentence}", file=sys.stderr)
        return code


def report_error(name: str, error: Exception) -> int:
    """Print the error of one of several ranks in one sentence, or its traceback if only a bug can cause it.

    Returns:
        The exit code.
    """
    sentence, code = _explain(error, COMMANDS[name])
    if sentence is None or os.environ.get("SEMHITOK_TRACEBACK"):
        traceback.print_exception(error)
    else:
        print(f"semhitok {name}: rank {os.environ.get('RANK', '?')}: {sentence}", file=sys.stderr)
    return code


def _explain(error: Exception, command: Command) -> tuple[str | None, int]:
    """A sentence for the user and the exit code; None in place of the sentence if only a bug can cause the error."""
    from semhitok.cli.arguments import UsageError

    text = " ".join(str(error).split())
    if _is_out_of_memory(error):
        return f"out of memory: {command.memory}", 1
    if isinstance(error, UsageError):
        return text, 2
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{f', {error.filename} could not be written' if error.filename else ''}", 1
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return f"a process that reads data was killed, perhaps for lack of memory; fewer workers need less ({text})", 1
    if isinstance(error, ValueError | OSError | ImportError):
        return text, 1
    return None, 1


def _is_out_of_memory(error: Exception) -> bool:
    """Python, numpy, torch on a GPU, torch's CPU allocator and a failed fork each report it differently."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if not isinstance(error, RuntimeError):
        return False
    return type(error).__name__ == "OutOfMemoryError" or any(
        phrase in str(error) for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _reader_is_gone() -> bool:
    """Whether the pipe is closed (``| head``); if so, the interpreter's final flush is silenced."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")  # after a failed write the flush may find nothing left to write
    except BrokenPipeError:
        _discard_output()
        return True
    except OSError:  # no file behind it
        pass
    return False


def _discard_output() -> None:
    """Silence the interpreter's final flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars and warnings about loading weights, which is checked here; downloads keep their bars."""
    from huggingface_hub import utils as hub
    from transformers.utils import logging

    bars, downloads, verbosity = (
        logging.is_progress_bar_enabled(),
        not hub.are_progress_bars_disabled(),
        logging.get_verbosity(),
    )
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if downloads:
        hub.enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if not downloads:
            hub.disable_progress_bars()
