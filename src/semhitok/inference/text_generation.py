"""Text generation for conversations, batches of questions and benchmarks.

Shapes: B prompts, L positions, C codes per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are generated. Of the model's own generation configuration only the end ids are used.

    Attributes:
        max_new_tokens: maximum length of an answer; it is shorter where the context ends.
        temperature: 0 takes the most likely id, above 0 samples.
        top_p, top_k: restrict sampling; 1 and 0 disable them, top_p 0 takes the most likely id.
        num_beams: 1 disables beam search; None is the model's own setting.
        repetition_penalty: 1 disables it; None is the model's own setting.
        stops: stop strings; an answer ends before the first of them.

    Raises:
        ValueError: a value out of its range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int | None = 1
    repetition_penalty: float | None = 1.0
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("temperature", 0), ("top_k", 0), ("num_beams", 1)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must lie in [0, 1], got {self.top_p}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be above 0 (1 disables it), got {self.repetition_penalty}")


@dataclass(frozen=True)
class GeneratedText:
    """One answer: its text up to the first stop string, and how many ids were generated."""

    text: str
    tokens: int


@torch.no_grad()
def generate_text(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    inputs: Mapping[str, Any],
    options: AnswerOptions,
    *,
    end_id: int | None = None,
    streamer: BaseStreamer | None = None,
) -> list[GeneratedText]:
    """Continue a batch of prompts.

    Args:
        model: in eval mode.
        processor: the model's own.
        inputs: ``input_ids`` and ``attention_mask`` (B,L) on the model's device, padded on the left; ``pixel_values`` for
            placeholders among the ids, ``visual_codes`` (B,L,C) for images that are ids already, where C > 1.
        options: for all of them; sampling follows ``torch.manual_seed``.
        end_id: ends an answer if the model's own configuration has no end id.
        streamer: as in transformers; receives the ids of a single prompt while they are generated.

    Raises:
        ValueError: a prompt that leaves no room in the context.
    """
    length = inputs["input_ids"].shape[1]
    # Each answer ends where its own context does, whatever else is in the batch. A prompt that leaves no room is rejected
    # by the model itself.
    rooms = [room_of(model, used, options) for used in inputs["attention_mask"].sum(dim=1).tolist()]
    arguments: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if options.temperature > 0:
        sampling = {name: getattr(options, name) for name in ("temperature", "top_p", "top_k")}
        arguments = {"do_sample": True, **sampling}
    for name in ("num_beams", "repetition_penalty"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    if options.stops:
        arguments["stopping_criteria"] = StoppingCriteriaList([_StopStrings(processor, options.stops, length)])
    if end_id is not None and (model.generation_config is None or model.generation_config.eos_token_id is None):
        arguments["eos_token_id"] = end_id
    ids_BL = model.generate(
        **inputs, **arguments, max_new_tokens=max(rooms), pad_token_id=processor.pad_id, streamer=streamer
    )
    return texts_of(processor, ids_BL[:, length:], rooms, options.stops)


def room_of(model: SemHiTokForConditionalGeneration, used: int, options: AnswerOptions) -> int:
    """Maximum number of new ids after a prompt of ``used`` ids, at least 1."""
    return max(1, min(options.max_new_tokens, model.config.context_length - used))


def texts_of(
    processor: SemHiTokMLLMProcessor, ids_BL: Tensor, rooms: Sequence[int], stops: Sequence[str] = ()
) -> list[GeneratedText]:
    """Decode generated ids: each row up to its room, without padding, up to the first stop string."""
    texts = []
    for ids, room in zip(ids_BL.tolist(), rooms, strict=True):
        found = ids[:room]
        while found and found[-1] == processor.pad_id:
            found.pop()
        text = processor.post_process_image_text_to_text([found])[0] if found else ""
        texts.append(GeneratedText(before_stop(text, stops), len(found)))
    return texts


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(places)] if places else text


class _StopStrings(StoppingCriteria):
    """Ends a row once it contains a stop string; saves time and changes no answer."""

    def __init__(self, processor: SemHiTokMLLMProcessor, stops: Sequence[str], prompt_length: int) -> None:
        self.decode = processor.tokenizer.decode
        self.stops, self.prompt_length = stops, prompt_length
        # A character has at most four bytes and a byte at most one id.
        self.window = 4 * max(map(len, stops)) + 4

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:  # pyright: ignore
        tails = input_ids[:, max(self.prompt_length, input_ids.shape[1] - self.window) :].tolist()
        texts = [self.decode(tail, skip_special_tokens=True) for tail in tails]
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)
