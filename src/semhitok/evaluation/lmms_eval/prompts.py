"""Conversations of benchmarks as prompts: images where the conversation has them, text truncated to fit the context.

Some of a benchmark's thousands of questions exceed a small model's context. An error would end the run, so they are
truncated on the left, and the caller counts them.

Shapes: B prompts, L positions, N tokens of one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semhitok.data.records import IMAGE
from semhitok.mllm import SemHiTokMLLMProcessor, Vocabulary
from semhitok.mllm.chat import read_messages

Messages = Sequence[Mapping[str, Any]]
"""Messages with "role" and "content", a text or parts; images are under "image", "path" or "url"."""

TEXT_SHARE = 8
"""A truncated prompt keeps at least one position in this many for text; images are dropped, first ones first, to allow it."""


@dataclass(frozen=True)
class Prompt:
    """Ids of a prompt and the images of its placeholders.

    Attributes:
        ids: each image is begin id, N placeholders, end id.
        images: in order, of any type that the image processor accepts.
        cut: whether something was left out.
    """

    ids: tuple[int, ...]
    images: tuple[Any, ...]
    cut: bool = False


def prompt_of(processor: SemHiTokMLLMProcessor, conversation: Messages) -> Prompt:
    """The prompt for the answer to a conversation, from the chat template, of any length.

    Raises:
        ValueError: a message without role or content, or a part that is neither text nor an image, such as a video.
    """
    messages = [placed(message) for message in conversation]
    _, images = read_messages(messages)
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    return Prompt(tuple(processor.token_ids(text)), tuple(images))


def answer_ids(processor: SemHiTokMLLMProcessor, conversation: Messages, answer: str) -> tuple[int, ...]:
    """Ids of a given answer after ``prompt_of``: as in training, without the end of the turn.

    Spaces around the answer are left to the template: benchmarks add one before it for plain language models.
    """
    if not answer.strip():
        return ()
    messages = [*map(placed, conversation), {"role": "assistant", "content": answer.strip()}]
    whole = processor.apply_chat_template(messages, continue_final_message=True)
    *_, (ids, continues) = processor.segment_ids(whole.segments)
    if continues:
        return tuple(ids)
    # The template does not write the answer after its generation prompt.
    ((ids, _),) = processor.segment_ids([processor.plain_text(answer)])
    return tuple(ids)


def placed(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its images at the marks ``<image>`` in its text, if there are as many.

    Other marks are words about images (a question that names the same image twice).
    """
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or not any(IMAGE in _text(part) for part in content):
        return message
    images = [part for part in content if part.get("type") == "image"]
    if len(images) != sum(_text(part).count(IMAGE) for part in content):
        return message
    parts, waiting = [], iter(images)
    for part in content:
        if part.get("type") == "image":
            continue
        first, *others = _text(part).split(IMAGE)
        parts.append({**part, "text": first} if first or others else part)
        for text in others:
            parts += [next(waiting), {"type": "text", "text": text}]
    return {**message, "content": parts}


def fitted(vocabulary: Vocabulary, prompt: Prompt, limit: int) -> Prompt:
    """Truncate a prompt to at most ``limit`` positions: text from the left, images only as a whole.

    Args:
        vocabulary: the id layout.
        prompt: of any length.
        limit: at least 1.

    Raises:
        ValueError: limit below 1.
    """
    if limit < 1:
        raise ValueError(f"a prompt needs room for at least 1 token, got {limit}")
    if len(prompt.ids) <= limit:
        return prompt
    span, count = vocabulary.span_length, len(prompt.images)
    texts = len(prompt.ids) - count * span
    images = min(count, (limit - min(texts, max(1, limit // TEXT_SHARE))) // span)
    drop_images, drop_texts = count - images, max(0, texts - (limit - images * span))
    kept: list[int] = []
    position = 0
    while position < len(prompt.ids):
        if prompt.ids[position] == vocabulary.image_begin_id:
            if drop_images:
                drop_images -= 1
            else:
                kept += prompt.ids[position : position + span]
            position += span
            continue
        if drop_texts:
            drop_texts -= 1
        else:
            kept.append(prompt.ids[position])
        position += 1
    return Prompt(tuple(kept), prompt.images[count - images :], cut=True)


def padded(processor: SemHiTokMLLMProcessor, prompts: Sequence[Prompt], device: torch.device) -> dict[str, Tensor]:
    """Model inputs, padded on the left: input_ids, attention_mask (B,L), and with images pixel_values (images,3,H,W)."""
    length = max(len(prompt.ids) for prompt in prompts)
    missing = [length - len(prompt.ids) for prompt in prompts]
    inputs = {
        "input_ids": torch.tensor(
            [[processor.pad_id] * empty + list(prompt.ids) for empty, prompt in zip(missing, prompts, strict=True)]
        ),
        "attention_mask": torch.tensor([[0] * empty + [1] * (length - empty) for empty in missing]),
    }
    images = [image for prompt in prompts for image in prompt.images]
    if images:
        inputs["pixel_values"] = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    return {name: value.to(device) for name, value in inputs.items()}


def _text(part: Any) -> str:
    """The text of a part, empty if it is not text."""
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else ""
