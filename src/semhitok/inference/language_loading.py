"""What the commands of the language model work on: a unified model and its processor."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError

from semhitok.inference.loading import choose_device, newest_model
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig, SemHiTokMLLMProcessor
from semhitok.tokenizers.checkpoints import builtin_checkpoint, find_model_type
from semhitok.tokenizers.registry import TOKENIZERS

SHIPPED_LANGUAGE_MODEL = "mllm_nano"


def load_language_model(
    name: str | Path, device: str | None, *, encoder: bool = True
) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
    """A unified model in eval mode on the device, in the precision it is stored in, and its processor.

    Args:
        name: a folder, a hub id, a shipped name, or the folder of a training run, whose last finished stage is taken.
        device: see ``choose_device``.
        encoder: False leaves out what only reading images needs.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of another class, damaged, or the processor belongs to another model.
    """
    chosen, place = choose_device(device), builtin_checkpoint(str(newest_model(Path(name)) or name))
    try:
        if find_model_type(place) in TOKENIZERS:
            raise ValueError(
                f"{name} holds an image tokenizer alone, a language model is needed ({SemHiTokMLLMConfig.model_type})"
            )
        model = SemHiTokForConditionalGeneration.from_pretrained(place, encoder=encoder)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or train it again") from error
    try:
        processor = SemHiTokMLLMProcessor.from_pretrained(place)
    except Exception as error:  # the tokenizers library raises a bare Exception for a damaged file
        raise ValueError(f"the processor of {name} cannot be loaded: {error}") from error
    if processor.vocabulary != model.vocabulary or processor.context_length != model.config.context_length:
        raise ValueError(f"the processor of {name} belongs to another model: their vocabularies differ")
    return model.eval().to(chosen), processor  # pyright: ignore[reportArgumentType, reportReturnType]


def find_model(name: str | Path) -> tuple[str, bool]:
    """Where a model lies, of a training run its newest finished one; and whether it is a language model.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: its configuration is damaged.
    """
    try:
        place = str(newest_model(Path(name)) or name)
        return place, find_model_type(builtin_checkpoint(place)) == SemHiTokMLLMConfig.model_type
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or export it again") from error
