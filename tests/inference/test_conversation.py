"""Conversations and the one function that generates text: streams, histories, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import TEXT_SIZE, WORDS, mllm, processor

from semhitok import Conversation, answer_questions
from semhitok.inference.conversation import ANSWER_OPTIONS
from semhitok.inference.text_generation import AnswerOptions, GeneratedText
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor


@pytest.fixture(scope="module")
def parts() -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
    model = mllm()
    with torch.no_grad():  # answers in words
        model.lm_head.weight[4 + len(WORDS) : TEXT_SIZE] = 0
        model.lm_head.weight[[0, 2, 3]] = 0
    return model, processor(model)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def test_the_pieces_of_an_answer_are_the_answer(parts):
    pieces, plain, streamed = [], Conversation(*parts, [picture()]), Conversation(*parts, [picture()])
    for question in ("what is there", "is the cat red"):
        wanted = plain.ask(question)
        pieces.clear()
        assert streamed.ask(question, on_text=pieces.append) == wanted
        assert "".join(pieces).rstrip() == wanted
        assert len(pieces) > 1
        assert all(pieces)
    assert streamed.turns == plain.turns
    assert len(plain.turns) == 2


def test_alone_and_in_batches_answers_are_the_same(parts):
    options = AnswerOptions(max_new_tokens=16)
    images, questions = [picture(0), picture(1)], ["what is there", "is the cat red"]
    alone = [Conversation(*parts, [image], options).ask(text) for image, text in zip(images, questions, strict=True)]
    assert answer_questions(*parts, images, questions) == alone


def test_text_alone_can_be_asked_about(parts):
    conversation = Conversation(*parts)
    assert conversation.ask("what is red")
    conversation.show([picture()])
    assert conversation.turns == []


def test_the_models_own_settings_hold_in_conversations_alone(parts):
    model, processing = parts
    plain = Conversation(*parts, [picture()]).ask("what is there")
    model.generation_config.repetition_penalty = 5.0
    try:
        assert Conversation(model, processing, [picture()]).ask("what is there") != plain
        unmoved = AnswerOptions(ANSWER_OPTIONS.max_new_tokens)
        assert Conversation(model, processing, [picture()], unmoved).ask("what is there") == plain
    finally:
        model.generation_config.repetition_penalty = None


def test_a_stream_is_the_answer(parts):
    plain, streamed = Conversation(*parts, [picture()]), Conversation(*parts, [picture()])
    for question in ("what is there", "is the cat red"):
        wanted = plain.ask(question)
        pieces = list(streamed.stream(question))
        assert "".join(pieces).rstrip() == wanted
        assert len(pieces) > 1
    assert streamed.turns == plain.turns


def test_a_closed_stream_stops_and_leaves_no_trace(parts):
    conversation = Conversation(*parts, [picture()])
    conversation.ask("what is there")
    turns, passes = list(conversation.turns), []
    hook = parts[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        answer = conversation.stream("is the cat red")
        next(answer)
        answer.close()
        stopped = len(passes)
        full = Conversation(*parts, [picture()])
        full.turns = list(turns)
        full.ask("is the cat red")
    finally:
        hook.remove()
    assert conversation.turns == turns
    assert stopped < len(passes) - stopped
    with pytest.raises(ValueError, match="the question is empty"):
        list(conversation.stream(" "))


def test_whatever_the_model_answered_the_conversation_goes_on(parts, monkeypatch):
    """A byte-level model can write any bytes, also those of noncharacters."""
    conversation = Conversation(*parts, [picture()])
    answered = [GeneratedText("a \ufdd0 <image> <begin> cat", 5)]
    monkeypatch.setattr("semhitok.inference.conversation.generate_text", lambda *given, **options: answered)
    for _ in range(2):
        assert conversation.ask("what is there") == answered[0].text
    assert conversation.turns[0][1] == "a \ufffd <image> <begin> cat"
