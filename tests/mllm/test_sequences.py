"""Records to ids and labels, written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.mllm.tiny_mllm import TEXT_SIZE, image_tokenizer, mllm, processor, text_tokenizer
from tests.tiny import shake, tiny_model

from semhitok.data.packing import IGNORED
from semhitok.data.records import Picture, Record, RecordError, Turn
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.sequences import SequenceBuilder
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

EOS, N = 1, 16
# 64 text ids and 64 visual ids, so begin and end are 128 and 129, the placeholder 130.
SPAN = [128, *[130] * N, 129]
PICTURE = Picture("p", ids=np.arange(N), tokenizer="ours")
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'and ' }}{% endif %}"
    "{{ message['content'] + ' ' }}"
    "{% if message['role'] == 'assistant' %}{{ '<end> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'and ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm(tokenizer=image_tokenizer())


def words(text: str) -> list[int]:
    return list(text_tokenizer()(text, add_special_tokens=False)["input_ids"])


def builder(model: SemHiTokForConditionalGeneration, bos: bool = False, **changes) -> SequenceBuilder:
    made = processor(model, bos=bos)
    made.chat_template = TEMPLATE
    options = {"learn": "everything", "unconditional": 0.1, "max_length": 40, "tokenizer": "ours"} | changes
    return SequenceBuilder(made, **options)


def given(build: SequenceBuilder, record: Record, chance: float = 0.5) -> tuple[list[int], list[int]]:
    (sequence,) = build(record, chance)
    learned = [place for place, label in enumerate(sequence.labels_L.tolist()) if label != IGNORED]
    assert [sequence.labels_L[place] for place in learned] == [sequence.ids_L[place] for place in learned]
    return sequence.ids_L.tolist(), learned


CAPTION = Record("caption", "r", "a red cat", pictures=(PICTURE,))
DRAWING = replace(CAPTION, kind="text_to_image")


def test_text(model):
    ids, learned = given(builder(model), Record("text", "r", "a red cat"))
    assert (ids, learned) == ([*words("a red cat"), EOS], [0, 1, 2, 3])
    ids, _ = given(builder(model, bos=True, max_length=3), Record("text", "r", "a red cat"))
    assert ids == [3, *words("a red")]


def test_captions(model):
    ids, learned = given(builder(model), CAPTION)
    assert ids == [*SPAN, *words("a red cat"), EOS]
    assert learned == list(range(N + 6))
    assert given(builder(model, learn="answers"), CAPTION) == (ids, list(range(N + 2, N + 6)))


def test_prompts_for_drawing_and_without_one(model):
    ids, learned = given(builder(model), DRAWING)
    assert ids == [*words("a red cat"), *SPAN, EOS]
    assert learned == list(range(N + 6))
    assert given(builder(model, learn="answers"), DRAWING) == (ids, list(range(3, N + 6)))
    # Just what generate takes as the unconditional prompt: the begin id alone.
    for bos in (False, True):
        assert given(builder(model, bos=bos), DRAWING, chance=0.0999) == (SPAN, list(range(N + 2)))
    assert given(builder(model), DRAWING, chance=0.1)[0] == ids
    assert given(builder(model, unconditional=1.0), CAPTION, chance=0.0)[0][: N + 2] == SPAN


def test_the_processors_prompts_are_beginnings_of_what_was_trained_on(model):
    for bos in (False, True):
        build, made = builder(model, bos=bos), processor(model, bos=bos)
        drawn = made(text="a red cat", generation_mode="image")["input_ids"][0].tolist()
        assert given(build, DRAWING)[0][: len(drawn)] == drawn
        described = made.token_ids("<image>")
        assert given(build, CAPTION)[0][: len(described)] == described


def test_chats_learn_the_answers_or_everything(model):
    turns = (
        Turn("user", "<image> what is there"),
        Turn("assistant", "a cat"),
        Turn("user", "draw two"),
        Turn("assistant", "<image>"),
    )
    chat = Record("chat", "r", turns=turns, pictures=(PICTURE, PICTURE))
    ids, learned = given(builder(model, learn="answers"), chat)
    and_, end = words("and"), [EOS]
    first, second = [*SPAN, *words("what is there"), *and_], [*words("draw two"), *and_]
    assert ids == [*first, *words("a cat"), *end, *second, *SPAN, *end]
    assert learned == [len(first) + each for each in range(3)] + list(range(len(first) + 3 + 3, len(ids)))
    assert given(builder(model), chat) == (ids, list(range(len(ids))))


def test_a_share_of_chats_has_captions_in_place_of_the_image(model):
    asked = (Turn("user", "<image> is there a cat"), Turn("assistant", "a cat"))
    chat = Record("chat", "r", "a red cat", asked, (PICTURE,))
    build = builder(model, learn="answers", described=0.3)
    prompt = words("a red cat is there a cat and")
    assert given(build, chat, 0.29) == ([*prompt, *words("a cat"), EOS], [len(prompt) + each for each in range(3)])
    shown = given(builder(model, learn="answers"), chat, 0.29)
    assert given(build, chat, 0.3) == shown
    assert shown[0][: len(SPAN)] == SPAN
    untold = replace(chat, text="")
    drawn = Record("chat", "r", "a red cat", (Turn("user", "draw"), Turn("assistant", "<image>")), (PICTURE,))
    for other in (untold, drawn, replace(drawn, kind="text_to_image"), replace(drawn, kind="caption")):
        assert given(build, other, 0.29) == given(builder(model, learn="answers"), other, 0.29)


def test_what_cannot_be_learned_from_is_refused(model):
    with pytest.raises(ValueError, match=r"unconditional must lie in \[0, 1\], got 1.5"):
        builder(model, unconditional=1.5)
    rewriting = builder(model)
    rewriting.processor.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(
        RecordError, match="r: the chat template writes answers that do not continue its generation prompt"
    ):
        rewriting(Record("chat", "r", turns=(Turn("user", "a"), Turn("assistant", "two"))), 0.5)


def test_ids_of_another_tokenizer_end_the_run(model):
    picture = replace(PICTURE, tokenizer="theirs")
    with pytest.raises(ValueError, match="come from the tokenizer theirs, this model has ours") as refused:
        builder(model)(replace(CAPTION, pictures=(picture,)), 0.5)
    assert not isinstance(refused.value, RecordError)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(4), r"ids of shape \(16,\) in \[0, 64\) are needed, got \(4,\)"),
        (np.arange(N) + TEXT_SIZE - 3, r"got \(16,\) in \[61, 76\]"),
    ],
)
def test_a_record_with_impossible_ids_is_skipped(model, ids: np.ndarray, message: str):
    with pytest.raises(RecordError, match=message):
        builder(model)(replace(CAPTION, pictures=(replace(PICTURE, ids=ids),)), 0.5)


def test_a_fingerprint_stands_for_what_decides_the_ids():
    fingerprint = tokenizer_fingerprint(tiny_model())
    finetuned = tiny_model()
    shake(finetuned.pixel_decoder)
    assert tokenizer_fingerprint(finetuned) == fingerprint
    for part in ("teacher", "pixel_encoder"):
        other = tiny_model()
        shake(getattr(other, part))
        assert tokenizer_fingerprint(other) != fingerprint
    assert tokenizer_fingerprint(tiny_model(seed=1)) != fingerprint
    with pytest.raises(ValueError, match="without its encoder side"):
        tokenizer_fingerprint(tiny_model(encoder=False))
