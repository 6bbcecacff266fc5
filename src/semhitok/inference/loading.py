"""Load a tokenizer or a language model: by the name of a bundled checkpoint, the folder of a model or a run, or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from semhitok.distributed import choose_device
from semhitok.inference import DEFAULT_LANGUAGE_MODEL, DEFAULT_TOKENIZER
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig, SemHiTokMLLMProcessor
from semhitok.storage.atomic import restore
from semhitok.storage.configuration import DamagedFileError, one_line
from semhitok.tokenizers.checkpoints import builtin_checkpoint, find_model_type, stage_is_finished
from semhitok.tokenizers.loading import load_tokenizer as load_checkpoint
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.registry import TOKENIZERS, tokenizer_kind
from semhitok.types import LANGUAGE_STAGES


def load_tokenizer(
    name: str | Path = DEFAULT_TOKENIZER, device: str | None = None, *, encoder: bool = True
) -> Tokenizer:
    """Load an image tokenizer of any registered kind, in eval mode and float32.

    Args:
        name: a bundled checkpoint, the folder of a model, a hub id, or the folder of a training run, whose last finished
            stage is taken.
        device: see ``distributed.choose_device``.
        encoder: False skips the parts that only encoding needs.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is of another class or damaged, its keys do not fit, or there is no such device.
    """
    chosen = choose_device(device)
    try:
        model = load_checkpoint(_place_of(name), encoder=encoder)
    except DamagedFileError as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or export it again") from error
    model.eval().to(chosen)  # pyright: ignore[reportArgumentType]
    return model


def load_language_model(
    name: str | Path = DEFAULT_LANGUAGE_MODEL,
    device: str | None = None,
    *,
    encoder: bool = True,
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
    """Load a unified language model, in eval mode, and its processor.

    Args:
        name: see ``load_tokenizer``.
        device: see ``distributed.choose_device``.
        encoder: False skips the parts that only understanding images needs.
        dtype: of the weights; auto is the precision that they are stored in.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is of another class or damaged, the processor belongs to another model, or there is no such device.
    """
    chosen, place = choose_device(device), builtin_checkpoint(_place_of(name))
    try:
        if find_model_type(place) in TOKENIZERS:
            raise ValueError(
                f"{name} holds only an image tokenizer, but a language model is needed ({SemHiTokMLLMConfig.model_type})"
            )
        model = SemHiTokForConditionalGeneration.from_pretrained(place, encoder=encoder, dtype=dtype)
    except DamagedFileError as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or train it again") from error
    try:
        processor = SemHiTokMLLMProcessor.from_pretrained(place)
    except Exception as error:  # the tokenizers library raises a bare Exception for a damaged file
        raise ValueError(f"the processor of {name} cannot be loaded: {one_line(error)}") from error
    if processor.vocabulary != model.vocabulary or processor.context_length != model.config.context_length:
        raise ValueError(f"the processor of {name} belongs to another model: their vocabularies differ")
    _check_image_size(name, processor.image_processor.size, model.config.tokenizer_config.image_size)
    return model.eval().to(chosen), processor  # pyright: ignore[reportArgumentType, reportReturnType]


def load_processor(name: str | Path, model: Tokenizer) -> Any:
    """Load the processor of a tokenizer's inputs, with a text tokenizer if the model has a text tower.

    Raises:
        ValueError: the text tokenizer is missing or damaged, or images would be of another size than the model's.
    """
    try:
        processor = model.load_processor(_place_of(name))
    except Exception as error:  # the tokenizers library raises a bare Exception for a damaged file
        raise ValueError(f"the text tokenizer of {name} cannot be loaded: {one_line(error)}") from error
    _check_image_size(name, getattr(processor, "image_processor", processor).size, model.config.image_size)
    return processor


def find_model(name: str | Path) -> tuple[str, bool]:
    """Location of a model, or of a training run's last finished one, and whether it is a language model.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: its configuration is damaged.
    """
    try:
        place = _place_of(name)
        return place, find_model_type(builtin_checkpoint(place)) == SemHiTokMLLMConfig.model_type
    except DamagedFileError as error:
        raise ValueError(f"the checkpoint {name} is damaged ({error}); fetch or export it again") from error


def newest_model(place: Path) -> Path | None:
    """The model of the last finished stage of a run, or of one of its stages' folders; ``place`` itself if it is a model.

    None if it is neither. An interrupted stage has a model, too, but is not marked as finished.
    """
    restore(place)
    if (place / "config.json").is_file():
        return place
    kinds = [*(tokenizer_kind(model_type).stages for model_type in TOKENIZERS), LANGUAGE_STAGES]
    if any(stage_is_finished(place, stage) for stages in kinds for stage in stages):
        return place / "model"
    # From the first to the last; a single-stage run has no stage folders.
    in_order = [stage for stages in kinds if len(stages) > 1 for stage in stages]
    return next(
        (place / stage / "model" for stage in reversed(in_order) if stage_is_finished(place / stage, stage)), None
    )


def stage_models(place: Path) -> dict[str, Path]:
    """The models of a run's finished stages that give back images, from the first to the last, by the stage's name.

    Empty for anything but the folder of a tokenizer's run with several stages. SemHiTok's first stage is left out, as it
    trains no pixel decoder.
    """
    kinds = [tokenizer_kind(model_type).stages for model_type in TOKENIZERS]
    in_order = [stage for stages in kinds if len(stages) > 1 for stage in stages if stage != "semantic"]
    return {stage: place / stage / "model" for stage in in_order if stage_is_finished(place / stage, stage)}


def _check_image_size(name: str | Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(
            f"the processor of {name} belongs to another model: it makes images of {found} pixels, the model takes {wanted}"
        )


def _place_of(name: str | Path) -> str:
    """The model's folder of a run, or the name as it is: hub ids and bundled names stay strings."""
    return str(newest_model(Path(name)) or name)
