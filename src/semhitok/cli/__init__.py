"""``semhitok``: the command line. One module per command; errors are one sentence and exit code 1 (2 for usage)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

# Name, module (with ``main(arguments)``), one line. Modules are imported when their command runs: --help stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "reconstruct": (
        "semhitok.cli.reconstruct",
        "send images through a tokenizer and back; write picture, ids, figures",
    ),
    "encode": ("semhitok.cli.encode", "images to token ids (.npy, .json or .safetensors)"),
    "decode": ("semhitok.cli.decode", "token ids to images"),
    "codes": ("semhitok.cli.codes", "draw the patches that fall on a semantic code (the paper's Figure 5)"),
    "inspect": ("semhitok.cli.inspect", "what a checkpoint is: stages, sizes, parameters, licence, training data"),
    "train": ("semhitok.cli.train", "train a recipe on images, stage by stage, with resume"),
    "evaluate": ("semhitok.cli.evaluate", "measure a tokenizer: reconstruction, codebook use, semantics"),
    "export": ("semhitok.cli.export", "write a trained model as a small checkpoint to share"),
    "data": ("semhitok.cli.data", "fetch public sources, compose the scenes benchmark"),
}


def usage() -> str:
    """The overview that ``semhitok --help`` prints."""
    lines = [f"  {name:<12} {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: semhitok COMMAND [options]",
            "",
            "Unified image tokenizers: images to discrete tokens and back.",
            "",
            "commands:",
            *lines,
            "",
            "semhitok COMMAND --help describes a command.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from semhitok import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"semhitok: {name!r} is no command; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command: Callable[[list[str]], int | None] = import_module(COMMANDS[name][0]).main
    try:
        return command(rest) or 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SEMHITOK_TRACEBACK"):
            raise
        print(f"semhitok {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
