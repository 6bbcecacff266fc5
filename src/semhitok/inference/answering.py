"""Ask a language model many questions about images, in the format of training: a chat that begins with the image, or the
image alone for a caption.

Answers are generated greedily; each image is tokenized once, however many questions there are about it.

Shapes: Q prompts, B prompts of a batch, L positions, N tokens of one image, C codes per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from semhitok.data.records import IMAGE, caption_in_place_of_image
from semhitok.inference.reconstruction import encode_images
from semhitok.inference.text_generation import AnswerOptions, generate_text, room_of, texts_of
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.tokenizers.image_processing import ImageLike

ANSWER_TOKENS, CAPTION_TOKENS = 16, 64
"""Default maximum numbers of new tokens."""

Progress = Callable[[int, int], None]
"""(prompts answered so far, prompts in all)."""


def answer_questions(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[ImageLike] | Tensor,
    questions: Sequence[str],
    *,
    batch_size: int = 64,
    max_new_tokens: int = ANSWER_TOKENS,
    projector: ContinuousProjector | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Ask each question about its image, in a chat of its own.

    Args:
        model: in eval mode.
        processor: the model's own.
        images: one for each question; an object that occurs several times is tokenized once. A tensor holds ids from
            ``tokenize_images``, or with a projector pixel values (Q,3,H,W) in [-1,1].
        questions: without the image placeholder.
        batch_size: prompts per batch. Only prompts of equal length share a batch, so nothing is padded and answers do not
            depend on the batch.
        max_new_tokens: maximum length of an answer.
        projector: for a language model trained on the teacher's continuous features in place of ids.
        progress: called after every batch.

    Returns:
        Answers in the order of the questions.

    Raises:
        ValueError: images and questions differ in number, a question is empty or too long, or the processor belongs to
            another model.
    """
    if len(images) != len(questions):
        raise ValueError(f"each question needs its image, got {len(images)} images for {len(questions)} questions")
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}] for question in questions
    ]
    return _generate(
        model, processor, images, _prompts(processor, chats), batch_size, max_new_tokens, projector, progress
    )


def answer_from_captions(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    captions: Sequence[str],
    questions: Sequence[str],
    *,
    batch_size: int = 64,
    max_new_tokens: int = ANSWER_TOKENS,
    progress: Progress | None = None,
) -> list[str] | None:
    """Ask each question with a caption in place of the image.

    Wrong answers to what the caption states are not perception errors. Arguments, result and errors are those of
    ``answer_questions``, but the result is None if a caption leaves no room for an answer.
    """
    if len(captions) != len(questions):
        raise ValueError(
            f"each question needs its caption, got {len(captions)} captions for {len(questions)} questions"
        )
    pairs = zip(captions, questions, strict=True)
    prompts = _prompts(
        processor,
        [[{"role": "user", "content": caption_in_place_of_image(("", text), said)}] for said, text in pairs],
    )
    if max(map(len, prompts), default=0) >= processor.context_length:
        return None
    codes = processor.vocabulary.codes_per_token
    nothing = torch.zeros((len(prompts), 0, *([codes] if codes > 1 else [])), dtype=torch.long)
    return _generate(model, processor, nothing, prompts, batch_size, max_new_tokens, None, progress)


def caption_images(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[ImageLike] | Tensor,
    *,
    batch_size: int = 64,
    max_new_tokens: int = CAPTION_TOKENS,
    projector: ContinuousProjector | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Caption each image; arguments, result and errors are those of ``answer_questions``."""
    prompts = [processor.token_ids(IMAGE)] * len(images)
    return _generate(model, processor, images, prompts, batch_size, max_new_tokens, projector, progress)


def tokenize_images(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[ImageLike],
    *,
    batch_size: int,
) -> Tensor:
    """Tokenize images of any type that the processor accepts to ids (Q,N) or (Q,N,C) on the CPU.

    Raises:
        ValueError: no image, an unreadable one, or a model that was loaded without the encoder side of its tokenizer.
    """
    if not images:
        raise ValueError("there are no images to tokenize, at least one is needed")
    batches = encode_images(
        model.image_tokenizer, images, fit=None, batch_size=batch_size, processor=processor.image_processor
    )
    return torch.cat([encoded.ids for encoded in batches])


def _prompts(processor: SemHiTokMLLMProcessor, chats: Sequence[list[dict[str, Any]]]) -> list[list[int]]:
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    return [processor.token_ids(text) for text in texts]


def _generate(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[ImageLike] | Tensor,
    prompts: Sequence[list[int]],
    batch_size: int,
    max_new_tokens: int,
    projector: ContinuousProjector | None,
    progress: Progress | None,
) -> list[str]:
    """Continue prompts greedily; each has one image, or none if ``images`` holds no tokens."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if processor.vocabulary != model.vocabulary:
        raise ValueError("the processor belongs to another model: their vocabularies differ")
    if not prompts:
        return []
    if projector is not None and not isinstance(images, Tensor):
        raise ValueError("with a projector, images must be pixel values from the image processor")
    seen = images if isinstance(images, Tensor) else _ids_of(model, processor, images, batch_size)
    options = AnswerOptions(max_new_tokens)
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    texts, done = [""] * len(prompts), 0
    for length, indices in sorted(by_length.items()):
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            prompts_BL = torch.tensor([prompts[index] for index in chosen], device=model.device)
            if projector is None:
                filled_BL, codes_BLC = model.vocabulary.place_image_ids(prompts_BL, seen[chosen].to(model.device))
                inputs = {
                    "input_ids": filled_BL,
                    "attention_mask": torch.ones_like(filled_BL),
                    "visual_codes": codes_BLC,
                }
                found = generate_text(model, processor, inputs, options)
            else:
                room = room_of(model, length, options)
                pixel_values = seen[chosen].to(model.device, model.dtype)
                ids_BL = projector.generate(model, prompts_BL, pixel_values, max_new_tokens=room)
                found = texts_of(processor, ids_BL[:, length:], [room] * len(chosen))
            for index, generated in zip(chosen, found, strict=True):
                texts[index] = generated.text.strip()
            done += len(chosen)
            if progress is not None:
                progress(done, len(prompts))
    return texts


def _ids_of(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    images: Sequence[ImageLike],
    batch_size: int,
) -> Tensor:
    different = {id(image): image for image in images}
    place = {identity: index for index, identity in enumerate(different)}
    ids = tokenize_images(model, processor, list(different.values()), batch_size=batch_size)
    return ids[[place[id(image)] for image in images]]
