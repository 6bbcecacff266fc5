"""``semhitok chat``: questions about images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, UsageError
from semhitok.inference import DEFAULT_LANGUAGE_MODEL

if TYPE_CHECKING:
    from semhitok.inference.conversation import Conversation

SWITCH = "/image"


@dataclass(frozen=True)
class Arguments:
    """Ask a language model about one or more images.

    Without a question, this is a conversation: each line of standard input is a question that may refer to earlier ones,
    "/image PATH" starts a new conversation about another image, and an empty line or the end of the input ends it.
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image file."""
    question: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="QUESTION", help_behavior_hint="(default: a conversation)"),
    ] = None
    """What to ask."""
    more_images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE ...", help_behavior_hint="")] = ()
    """Further images, shown after the first; put this option after the question."""
    model: Checkpoint = DEFAULT_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a bundled checkpoint."""
    max_new_tokens: Count = 128
    """Maximum length of an answer, in tokens."""
    temperature: float = 0.0
    """0 always takes the most likely token; 1 samples from the model's own distribution."""
    top_p: float = 1.0
    """Nucleus sampling with a temperature above 0: share of the probability mass to sample from."""
    seed: int = 0
    """Random seed for a temperature above 0."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok chat")
    if options.question is not None and not options.question.strip():
        raise UsageError("the question is empty; leave it out for a conversation")
    import torch

    from semhitok.data.images import load_image
    from semhitok.inference.conversation import ANSWER_OPTIONS, Conversation
    from semhitok.inference.loading import load_language_model
    from semhitok.mllm.sampling import Sampling

    try:
        sampling = Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    images = [load_image(path) for path in (options.image, *options.more_images)]
    model, processor = load_language_model(options.model, options.device)
    how = replace(
        ANSWER_OPTIONS,
        max_new_tokens=options.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )
    conversation = Conversation(model, processor, images, how)
    torch.manual_seed(sampling.seed)
    if options.question is not None:
        print(conversation.ask(options.question))
    else:
        _converse(conversation)
    return 0


def _converse(conversation: Conversation) -> None:
    """Print answers to standard output and everything else to standard error, one sentence each."""
    from semhitok.data.images import load_image

    if sys.stdin.isatty():
        _say(f'ask about the image; "{SWITCH} PATH" switches to another one, an empty line quits')
    for line in _lines():
        try:
            if line.split()[0] == SWITCH:
                conversation.show([load_image(_path(line))])
            else:
                conversation.ask(line, on_text=lambda text: print(text, end="", flush=True), notice=_say)
                print()
        except ValueError as error:
            _say(str(error))


def _lines() -> Iterator[str]:
    """Lines of standard input up to an empty one or its end."""
    sign = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(sign).strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _path(line: str) -> Path:
    name = line.removeprefix(SWITCH).strip()
    if not name:
        raise ValueError(f"{SWITCH} needs the path of an image")
    return Path(name).expanduser()


def _say(sentence: str) -> None:
    print(f"semhitok chat: {sentence}", file=sys.stderr)
