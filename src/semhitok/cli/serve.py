"""``semhitok serve``: a model as an HTTP server."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from semhitok.cli.arguments import COUNT, Count, Device, OptionalPath, UsageError, default
from semhitok.inference import DEFAULT_LANGUAGE_MODEL

NEEDED = ("fastapi", "uvicorn", "prometheus_client")
LIMITS = (
    *("batch_size", "queue_size", "max_bytes", "max_pixels", "max_images", "max_tokens", "max_seconds"),
    "receive_seconds",
)


@dataclass(frozen=True)
class Arguments:
    """Serve a model over HTTP, with the interface of OpenAI's.

    Chats with images, image generation, tokenization and detokenization; docs/serve.md has examples. The server is reached
    from this machine alone unless --host says otherwise. SIGTERM or Ctrl-C ends it after what it has accepted is answered.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")] = DEFAULT_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a bundled checkpoint: a language model, or an image
    tokenizer alone."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME"), default("the last part of CHECKPOINT")] = None
    """Name of the model in requests."""
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is reached from other machines."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8000
    """Port to listen at; 0 takes a free one."""
    tokens_file: OptionalPath = None
    """File of bearer tokens, one on each line, of which clients must send one. By default the tokens of the environment
    variable SEMHITOK_SERVER_TOKENS; without any, everyone is let in."""
    batch_size: Count = 16
    """Answers and images that are generated at once, and images that are tokenized at once."""
    queue_size: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Further requests that may wait; more get the status 429."""
    max_bytes: Count = 20_000_000
    """Length of the body of a request."""
    max_pixels: Count = 25_000_000
    """Pixels of an image."""
    max_images: Count = 16
    """Images in a request, or generated for it."""
    max_tokens: Count = 1024
    """New tokens of an answer."""
    max_seconds: float = 120.0
    """Time for a request, from its acceptance to the end of its answer."""
    receive_seconds: float = 30.0
    """Time in which a request must arrive."""
    threads: Annotated[int | None, COUNT, default("PyTorch's choice")] = None
    """CPU threads of the model. One is best for small models, and where other programs use the processor."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok serve")
    if not 0 <= options.port < 65536:
        raise UsageError(f"--port must lie in [0, 65536), got {options.port}")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {', '.join(missing)}, which the extra server installs: semhitok[server]")
    from semhitok.server.settings import BearerTokens, Limits

    try:
        limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    except ValueError as error:
        raise UsageError(str(error)) from error
    tokens = BearerTokens.read(options.tokens_file)

    import torch

    from semhitok.inference.served_model import ServedModel
    from semhitok.server.running import run_server
    from semhitok.server.state import State

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = ServedModel.load(options.model, options.device, max_pixels=limits.max_pixels)
    state = State.of(options.name or Path(options.model).name, model, limits)
    run_server(state, tokens, options.host, options.port)
    return 0
