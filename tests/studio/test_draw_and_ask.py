"""What the tabs Draw and Ask show: the images and answers of the Python API, as they are made."""

from __future__ import annotations

import numpy as np
import pytest
from tests.studio.pieces import Piece, image_of

from semhitok import Conversation, ImageGenerator, load_language_model
from semhitok.studio.ask import Chat, ask
from semhitok.studio.draw import draw


def test_images_appear_row_by_row_and_end_as_the_python_api_has_them(workspace, models):
    shown = list(draw(workspace, models["mllm"], "a red cat\n\nthe dog", 2.0, 3, 2))
    generator = ImageGenerator(*load_language_model(models["mllm"]), 2.0)
    wanted = generator(["a red cat", "a red cat", "the dog", "the dog"], [3, 4, 3, 4])
    last = Piece(shown[-1])
    assert [image["alt"] for image in last.all("img")] == [
        "a red cat, seed 3",
        "a red cat, seed 4",
        "the dog, seed 3",
        "the dog, seed 4",
    ]
    for image, picture in zip(last.all("img"), wanted, strict=True):
        assert np.array_equal(np.asarray(image_of(image)), np.asarray(picture))
    assert len(Piece(shown[0]).all("img")) == 2
    assert len(shown) == 8  # four rows of each prompt


def test_bad_prompts_are_a_sentence(workspace, models):
    for prompts, seed, count, match in (
        (" \n", 0, 1, "write what the image should show"),
        ("a cat", None, 1, "whole number"),
        ("a cat", -1, 1, "whole number"),
        ("a cat\nthe dog\na house", 0, 8, "at most 16 images are drawn at once, 3 prompts x 8 seeds are more"),
    ):
        with pytest.raises(ValueError, match=match):
            next(draw(workspace, models["mllm"], prompts, 3.0, seed, count))
    with pytest.raises(ValueError, match="guidance must be above 0"):
        next(draw(workspace, models["mllm"], "a cat", 0.0, 0, 1))


def test_answers_stream_and_later_questions_know_them(workspace, models, pictures):
    image = str(sorted(pictures.glob("*.png"))[0])
    chat = Chat()
    plain = Conversation(*load_language_model(models["mllm"]), [image])
    for number, question in enumerate(("what is there", "is the cat red"), 1):
        answer = plain.ask(question)
        steps = list(ask(workspace, chat, models["mllm"], [image], question))
        assert len(steps) > 1
        assert len(steps[-1]) == 2 * number
        assert steps[-1][-2:] == [
            {"role": "user", "content": question},
            {"role": "assistant", "content": steps[-1][-1]["content"]},
        ]
        assert steps[-1][-1]["content"].strip() == answer
    assert chat.conversation is not None
    assert chat.conversation.turns == plain.turns


def test_other_images_begin_a_new_conversation(workspace, models, pictures):
    one, two = (str(path) for path in sorted(pictures.glob("*.png"))[:2])
    chat = Chat()
    list(ask(workspace, chat, models["mllm"], [one], "what is there"))
    list(ask(workspace, chat, models["mllm"], [one, two], "what is there"))
    assert len(chat.messages) == 2
    assert chat.conversation is not None
    assert len(chat.conversation.images) == 2


def test_bad_questions_are_a_sentence(workspace, models, tmp_path):
    with pytest.raises(ValueError, match="the question is empty"):
        list(ask(workspace, Chat(), models["mllm"], [], " "))
    (tmp_path / "odd.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="image 1: not an image"):
        list(ask(workspace, Chat(), models["mllm"], [str(tmp_path / "odd.png")], "what"))
