"""``semhitok inspect``: describe a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from semhitok.inference import DEFAULT_TOKENIZER


@dataclass(frozen=True)
class Arguments:
    """Describe a checkpoint of a tokenizer or a language model: type, stages, sizes, parameters, licence, training data."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")] = DEFAULT_TOKENIZER
    """Folder of a model, or of a run, whose last finished stage is used; a hub id; or the name of a bundled checkpoint."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok inspect", config=(tyro.conf.FlagCreatePairsOff,))
    from semhitok.inference.loading import find_model, load_language_model, load_tokenizer
    from semhitok.mllm.continuous import ContinuousProjector
    from semhitok.mllm.settings import language_settings_of
    from semhitok.tokenizers.settings import settings_of

    place, language = find_model(options.model)
    if language:
        model, _ = load_language_model(place, "cpu")
        facts = language_settings_of(model, ContinuousProjector.load(place, model))
    else:
        facts = settings_of(load_tokenizer(place, "cpu"))
    if options.json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, indent="")
    return 0


def _print(facts: dict[str, Any], indent: str) -> None:
    for name, value in facts.items():
        title = f"{indent}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            print(title)
            _print(value, indent + "  ")
        elif isinstance(value, list):
            for number, entry in enumerate(value or ["none"]):
                print(f"{title if number == 0 else '':<26} {entry}")
        else:
            print(f"{title:<26} {f'{value:,}' if isinstance(value, int) else value}")
