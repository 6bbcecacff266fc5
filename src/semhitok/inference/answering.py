"""Ask a unified model about images, as in training: a chat that begins with the image, or the image alone for a caption.

Answers are generated greedily, as a user gets them; images are tokenized once, however many questions they raise.

Shapes: Q prompts, B prompts of a batch, L positions, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from semhitok.data.records import IMAGE, caption_in_place_of_image
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector

ANSWER_TOKENS, CAPTION_TOKENS = 16, 64
"""Generation ends there at the latest."""


@torch.no_grad()
def tokenize_images(
    model: SemHiTokForConditionalGeneration, processor: SemHiTokMLLMProcessor, images: Sequence[Any], *, batch_size: int
) -> Tensor:
    """Images of any kind that the processor takes -> ids of the image tokenizer, (Q,N) or (Q,N,C), on the CPU.

    Raises:
        ValueError: no image, one that cannot be read, or a model that was loaded without the encoder side of its tokenizer.
    """
    if not images:
        raise ValueError("there are no images to tokenize, at least one is needed")
    tokenizer, found = model.image_tokenizer, []
    for start in range(0, len(images), batch_size):
        pixel_values = processor.image_processor(list(images[start : start + batch_size]))["pixel_values"]
        found.append(tokenizer.encode(pixel_values.to(tokenizer.device, tokenizer.dtype)).ids.cpu())
    return torch.cat(found)


def normalised(answer: str) -> str:
    """Lower case, without a final full stop and space around."""
    return answer.strip().lower().removesuffix(".").rstrip()


def answer(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[Any] | Tensor,
    questions: Sequence[str],
    *,
    batch_size: int = 64,
    max_new_tokens: int = ANSWER_TOKENS,
    projector: ContinuousProjector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Ask each question about its image, in a chat of its own.

    Args:
        model: in eval mode.
        processor: of the model.
        images: for each question one; the same object under several questions is tokenized once. A tensor holds ids from
            ``tokenize_images``, or with a projector pixel values (Q,3,H,W) in [-1,1].
        questions: without mark for the image.
        batch_size: prompts at a time. Those of equal length go together: nothing is padded, and a batch answers like its rows.
        max_new_tokens: of an answer.
        projector: for a language model that was trained on the teacher's continuous features in place of ids.
        progress: called after every batch with the answers so far and all.

    Returns:
        Answers in the order of the questions, ``normalised``.

    Raises:
        ValueError: images and questions differ in number, an empty or too long question, or a processor of another model.
    """
    if len(images) != len(questions):
        raise ValueError(f"each question needs its image, got {len(images)} images for {len(questions)} questions")
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}] for question in questions
    ]
    return _generate(
        model, processor, images, _prompts(processor, chats), batch_size, max_new_tokens, projector, progress
    )


def answer_in_words(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    descriptions: Sequence[str],
    questions: Sequence[str],
    *,
    batch_size: int = 64,
    max_new_tokens: int = ANSWER_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[str] | None:
    """Ask each question about what a description says, which stands where ``answer`` has the image.

    What a model gets wrong here although the description says it, better eyes alone would not mend. Arguments, result and
    errors as for ``answer``, but None where a description leaves no room for an answer.
    """
    if len(descriptions) != len(questions):
        raise ValueError(
            f"each question needs its description, got {len(descriptions)} descriptions for {len(questions)} questions"
        )
    pairs = zip(descriptions, questions, strict=True)
    prompts = _prompts(
        processor,
        [[{"role": "user", "content": caption_in_place_of_image(IMAGE + text, said)}] for said, text in pairs],
    )
    if max(map(len, prompts), default=0) >= processor.context_length:
        return None
    codes = processor.vocabulary.codes_per_token
    nothing = torch.zeros((len(prompts), 0, *([codes] if codes > 1 else [])), dtype=torch.long)
    return _generate(model, processor, nothing, prompts, batch_size, max_new_tokens, None, progress)


def caption(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[Any] | Tensor,
    *,
    batch_size: int = 64,
    max_new_tokens: int = CAPTION_TOKENS,
    projector: ContinuousProjector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Describe each image; arguments, result and errors as for ``answer``."""
    prompts = [processor.token_ids(IMAGE)] * len(images)
    return _generate(model, processor, images, prompts, batch_size, max_new_tokens, projector, progress)


def _prompts(processor: SemHiTokMLLMProcessor, chats: Sequence[list[dict[str, Any]]]) -> list[list[int]]:
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    return [
        processor.token_ids(text, add_special_tokens=False) for text in texts
    ]  # the template wrote the special ones


def _generate(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[Any] | Tensor,
    prompts: Sequence[list[int]],
    batch_size: int,
    max_new_tokens: int,
    projector: ContinuousProjector | None,
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Greedy continuations of prompts with one image each, or with none and ``images`` of no tokens."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if processor.vocabulary != model.vocabulary:
        raise ValueError("the processor belongs to another model: their vocabularies differ")
    if not prompts:
        return []
    if projector is not None and not isinstance(images, Tensor):
        raise ValueError("with a projector images are pixel values, as the image processor gives them")
    seen = images if isinstance(images, Tensor) else _ids_of(model, processor, images, batch_size)
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    texts, done = [""] * len(prompts), 0
    for length, indices in sorted(by_length.items()):
        # A prompt that leaves no room is refused by the model, which says so.
        limit = max(1, min(max_new_tokens, model.config.context_length - length))
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            prompts_BL = torch.tensor([prompts[index] for index in chosen], device=model.device)
            if projector is None:
                found = _follow(model, processor, prompts_BL, seen[chosen], limit)
            else:
                pixel_values = seen[chosen].to(model.device, model.dtype)
                found = projector.generate(model, prompts_BL, pixel_values, max_new_tokens=limit)
            for index, text in zip(
                chosen, processor.post_process_multimodal_output(found[:, length:].cpu()), strict=True
            ):
                texts[index] = normalised(text)
            done += len(chosen)
            if progress is not None:
                progress(done, len(prompts))
    return texts


def _ids_of(
    model: SemHiTokForConditionalGeneration, processor: SemHiTokMLLMProcessor, images: Sequence[Any], batch_size: int
) -> Tensor:
    different = {id(image): image for image in images}
    place = {identity: index for index, identity in enumerate(different)}
    ids = tokenize_images(model, processor, list(different.values()), batch_size=batch_size)
    return ids[[place[id(image)] for image in images]]


def _follow(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    prompts_BL: Tensor,
    ids: Tensor,
    max_new_tokens: int,
) -> Tensor:
    """Prompts with ids (B,N) or (B,N,C) of images in their places, and what the model says next."""
    filled_BL, codes_BLC = model.vocabulary.place_image_ids(prompts_BL, ids.to(model.device))
    return model.generate(
        filled_BL,
        attention_mask=torch.ones_like(filled_BL),
        visual_codes=codes_BLC,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=processor.pad_id,
    )
