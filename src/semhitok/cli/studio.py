"""``semhitok studio``: a page to see what each token keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from semhitok.cli.arguments import Device, OptionalPath, UsageError
from semhitok.inference import DEFAULT_LANGUAGE_MODEL, DEFAULT_TOKENIZER

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CHECKPOINT ...")]


@dataclass(frozen=True)
class Arguments:
    """Open the studio, a page in the browser: reconstruct photographs, look at codes and change them, draw images from text,
    ask about images, compare results.

    Works offline. The page is served to this machine only, unless --host says otherwise.
    """

    model: Names = (DEFAULT_TOKENIZER,)
    """Tokenizers to offer: folders of models or training runs, hub ids, or names of bundled checkpoints."""
    language_model: Names = (DEFAULT_LANGUAGE_MODEL,)
    """Language models to offer, named in the same ways."""
    images: OptionalPath = None
    """Folder of example images, in place of the bundled photographs and scenes."""
    results: OptionalPath = None
    """Folder of results to compare, in place of the bundled ablations."""
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on. Anyone who can reach it may name folders of this machine in the page."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 7860
    """Port to listen on; 0 takes any free one."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok studio")
    if not 0 <= options.port < 65536:
        raise UsageError(f"--port must be 0 to 65535, got {options.port}")
    for name in ("images", "results"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"--{name}: there is no folder {folder}")
    from semhitok.inference.loading import find_model

    for name in (*options.model, *options.language_model):
        find_model(name)  # a mistyped name is an error now, not in the page
    try:
        from semhitok.studio.serving import launch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "semhitok":
            raise
        raise ImportError("the studio needs Gradio: install it with `pip install 'semhitok[studio]'`") from error
    from semhitok.studio.workspace import Workspace

    workspace = Workspace(options.model, options.language_model, options.images, options.results, options.device)
    launch(workspace, host=options.host, port=options.port)
    return 0
