"""Batches of questions against single ones that go the way of a user: images beside the chat, tokenized by the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import CONTEXT, codes_mllm, image_tokenizer, mllm, processor

from semhitok.inference.answering import answer_from_captions, answer_questions, caption_images, tokenize_images
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.tokenizers import SemHiTokModel

QUESTIONS = [
    "is there a cat",
    "what is red",
    "is there a dog",
    "what is the big house and the cat",
    "a",
    "is there a cat",
]
PLACES = [0, 0, 1, 2, 1, 2]


def pictures(count: int = 3) -> list[Image.Image]:
    random = np.random.default_rng(1)
    return [Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


def ask_alone(
    model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor, image: Image.Image, question: str
) -> str:
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
    inputs = processing.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    found = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return processing.post_process_image_text_to_text(found[:, inputs["input_ids"].shape[1] :])[0].strip()


@pytest.mark.parametrize("several_codes", [False, True])
def test_answers_are_those_that_a_user_gets(several_codes: bool):
    model = codes_mllm() if several_codes else mllm()
    processing, images = processor(model), pictures()
    asked = [images[place] for place in PLACES]
    alone = [ask_alone(model, processing, image, question) for image, question in zip(asked, QUESTIONS, strict=True)]
    assert len(set(alone)) > 2, "image and question matter"
    for batch_size in (1, 2, 64):
        assert answer_questions(model, processing, asked, QUESTIONS, batch_size=batch_size) == alone
    ids = tokenize_images(model, processing, images, batch_size=2)
    assert answer_questions(model, processing, ids[PLACES], QUESTIONS) == alone
    assert answer_questions(model, processing, asked[::-1], QUESTIONS[::-1]) == alone[::-1]


@pytest.mark.parametrize("several_codes", [False, True])
def test_what_is_said_stands_where_the_image_stood(several_codes: bool):
    model = codes_mllm() if several_codes else mllm()
    processing = processor(model)
    descriptions = ["a red cat", "a dog", "a red cat", "the big house", "a dog", "the blue house"]
    alone = []
    for said, question in zip(descriptions, QUESTIONS, strict=True):
        chat = [{"role": "user", "content": f"{said}\n{question}"}]
        inputs = processing.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
        found = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        alone.append(processing.post_process_image_text_to_text(found[:, inputs["input_ids"].shape[1] :])[0].strip())
    assert len(set(alone)) > 2, "description and question matter"
    for batch_size in (1, 64):
        assert answer_from_captions(model, processing, descriptions, QUESTIONS, batch_size=batch_size) == alone
    with pytest.raises(ValueError, match="got 6 captions for 2 questions"):
        answer_from_captions(model, processing, descriptions, QUESTIONS[:2])
    assert answer_from_captions(model, processing, ["a " * CONTEXT, "a dog"], QUESTIONS[:2]) is None


def test_captions_are_those_that_a_user_gets():
    images = pictures()
    for seed in range(
        30
    ):  # the first random weights that say different words about the images, whatever the version of torch
        model = mllm()
        processing = processor(model, bos=True)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            model.lm_head.weight += torch.randn_like(model.lm_head.weight) * 0.5
        alone = []
        for image in images:
            inputs = processing(image, "<image>")
            found = model.generate(**inputs, max_new_tokens=9, do_sample=False)
            answer = found[:, inputs["input_ids"].shape[1] :]
            alone.append(processing.post_process_image_text_to_text(answer)[0].strip())
        if len(set(alone)) > 1:
            break
    assert len(set(alone)) > 1
    assert caption_images(model, processing, images, batch_size=2, max_new_tokens=9) == alone


def test_greedy_whatever_the_language_model_ships_with():
    model = mllm()
    processing, image = processor(model), pictures()[0]
    wanted = answer_questions(model, processing, [image] * 2, QUESTIONS[:2])
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0)
    assert answer_questions(model, processing, [image] * 2, QUESTIONS[:2]) == wanted


def test_an_image_is_tokenized_once(monkeypatch: pytest.MonkeyPatch):
    model, images, seen = mllm(), pictures(), []
    encode = SemHiTokModel.encode
    monkeypatch.setattr(SemHiTokModel, "encode", lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels))
    done = []
    answer_questions(
        model,
        processor(model),
        [images[place] for place in PLACES],
        QUESTIONS,
        batch_size=2,
        progress=lambda *numbers: done.append(numbers),
    )
    assert seen == [2, 1]
    assert done[-1] == (6, 6)
    assert [number for number, _ in done] == sorted(number for number, _ in done)


def test_answers_end_with_the_context():
    model = mllm()
    model.generation_config.eos_token_id = None
    (long,) = answer_questions(model, processor(model), pictures(1), ["a " * (CONTEXT - 23)], max_new_tokens=50)
    inside = CONTEXT - (CONTEXT - 23) - 18 - 2  # of question, image, "user:" and "assistant:"
    assert len(long.split()) <= inside


def test_nothing_to_ask():
    model = mllm()
    assert answer_questions(model, processor(model), [], []) == []
    assert caption_images(model, processor(model), []) == []


def test_bad_input():
    model, images = mllm(), pictures()
    processing = processor(model)
    with pytest.raises(ValueError, match="got 3 images for 2 questions"):
        answer_questions(model, processing, images, QUESTIONS[:2])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        answer_questions(model, processing, images, QUESTIONS[:3], batch_size=0)
    with pytest.raises(ValueError, match="longer than the context"):
        answer_questions(model, processing, images[:1], ["a " * CONTEXT])
    with pytest.raises(ValueError, match="processor belongs to another model"):
        answer_questions(model, processor(codes_mllm()), images, QUESTIONS[:3])
    with pytest.raises(ValueError, match="no images to tokenize"):
        tokenize_images(model, processing, [], batch_size=2)
    assert torch.equal(
        tokenize_images(model, processing, images, batch_size=3),
        image_tokenizer().encode(processing.image_processor(images)["pixel_values"]).ids,
    )
