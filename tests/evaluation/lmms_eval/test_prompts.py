"""Conversations of benchmarks as prompts, and what is cut from those that are too long."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.benchmark_model import picture, processing
from transformers import BatchFeature

from semhitok.evaluation.lmms_eval.prompts import Prompt, answer_ids, fitted, padded, placed, prompt_of
from semhitok.mllm import SemHiTokMLLMProcessor, Vocabulary

SMALL = Vocabulary(text_size=10, visual_size=4, image_tokens=2)
BEGIN, END, HOLE = SMALL.image_begin_id, SMALL.image_end_id, SMALL.placeholder_id
IMAGE = (BEGIN, HOLE, HOLE, END)


@pytest.fixture(scope="module")
def processor() -> SemHiTokMLLMProcessor:
    return processing()


def user(*parts: object) -> dict:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "url": part} for part in parts
    ]
    return {"role": "user", "content": content}


def test_a_prompt_is_what_the_processor_makes_of_the_conversation(processor: SemHiTokMLLMProcessor):
    conversation = [user("a", picture(0), "and", picture(1), "what is there")]
    prompt = prompt_of(processor, conversation)
    wanted = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert isinstance(wanted, BatchFeature)
    found = padded(processor, [prompt], torch.device("cpu"))
    assert sorted(found) == sorted(wanted)
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


def test_batches_are_padded_on_the_left(processor: SemHiTokMLLMProcessor):
    short, long = Prompt((5, 6), ()), Prompt((7, 8, 9), ())
    inputs = padded(processor, [short, long], torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[0, 5, 6], [7, 8, 9]]
    assert inputs["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert "pixel_values" not in inputs


def test_images_go_to_the_marks_in_the_text():
    first, second = picture(0), picture(1)
    message = placed(user(first, second, "here <image> and <image> what"))
    assert [part.get("text", part.get("url")) for part in message["content"]] == [
        "here ",
        first,
        " and ",
        second,
        " what",
    ]
    assert placed(user(first, "what")) == user(first, "what")


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ((picture(), "<image> or <image>"), ("<image> or <image>", 1)),
        (("what is an <image>",), ("what is an <image>", 0)),
    ],
)
def test_other_marks_are_words(processor: SemHiTokMLLMProcessor, parts: tuple, wanted: tuple):
    message = placed(user(*parts))
    texts = [part["text"] for part in message["content"] if part["type"] == "text"]
    assert (texts[-1], len(prompt_of(processor, [message]).images)) == wanted
    plain = {"role": "user", "content": "an <image>"}
    assert placed(plain) == plain


def test_videos_are_refused(processor: SemHiTokMLLMProcessor):
    with pytest.raises(ValueError, match="a part of a message must be"):
        prompt_of(processor, [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}])


def test_an_answer_continues_the_prompt_as_in_training(processor: SemHiTokMLLMProcessor):
    conversation = [user(picture(), "is there a cat")]
    whole = processor.apply_chat_template([*conversation, {"role": "assistant", "content": "the red dog"}])
    assert isinstance(whole, str)
    wanted = processor.token_ids(whole, add_special_tokens=False)
    for answer in ("the red dog", " the red dog", "the red dog\n"):
        found = [*prompt_of(processor, conversation).ids, *answer_ids(processor, conversation, answer)]
        assert found == wanted[: len(found)]
        assert processor.tokenizer.decode(found[-3:]) == "the red dog"
    assert answer_ids(processor, conversation, " ") == ()


@pytest.mark.parametrize(
    ("limit", "wanted", "images"),
    [
        (12, (1, 2, *IMAGE, 3, *IMAGE, 4), "xy"),
        (11, (2, *IMAGE, 3, *IMAGE, 4), "xy"),
        (10, (*IMAGE, 3, *IMAGE, 4), "xy"),
        (9, (*IMAGE, *IMAGE, 4), "xy"),
        (8, (1, 2, 3, *IMAGE, 4), "y"),  # both images would leave no text
        (5, (*IMAGE, 4), "y"),
        (4, (1, 2, 3, 4), ""),
        (1, (4,), ""),
    ],
)
def test_text_is_cut_on_the_left_and_images_are_whole(limit: int, wanted: tuple, images: str):
    found = fitted(SMALL, Prompt((1, 2, *IMAGE, 3, *IMAGE, 4), ("x", "y")), limit)
    assert found.ids == wanted
    assert found.images == tuple(images)
    assert found.cut == (limit < 12)
    SMALL.check_spans(torch.tensor([found.ids]))


def test_text_keeps_its_share():
    # 16 positions: 2 of them are text's whatever it costs, so that only three of four images stay.
    prompt = Prompt((*range(1, 10), *IMAGE * 4), ("a", "b", "c", "d"))
    found = fitted(SMALL, prompt, 16)
    assert found.ids == (6, 7, 8, 9, *IMAGE * 3)
    assert found.images == ("b", "c", "d")
    assert fitted(SMALL, Prompt(IMAGE * 2, ("a", "b")), 8).ids == IMAGE * 2
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        fitted(SMALL, prompt, 0)
