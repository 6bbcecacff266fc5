"""Training sees the ids that generation sees, turn by turn, for every kind of text tokenizer and template."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from tests.mllm.text_tokenizers import KINDS, TEMPLATES, made
from tests.mllm.tiny_mllm import image_tokenizer, language_model

from semhitok.data.packing import IGNORED, TokenSequence
from semhitok.data.records import Picture, Record, RecordError, Turn
from semhitok.evaluation.lmms_eval.prompts import answer_ids, prompt_of
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor, chat_rendering, sequences
from semhitok.mllm.sequences import SequenceBuilder

TEXT_SIZE, CONTEXT = 700, 900
PICTURE = Picture("p", ids=np.arange(16), tokenizer="ours")


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    larger = language_model("qwen2, tied", vocab_size=TEXT_SIZE, max_position_embeddings=CONTEXT)
    return SemHiTokForConditionalGeneration.from_language_model(larger, image_tokenizer())


def processing(model, kind: str, template: str | None = None) -> SemHiTokMLLMProcessor:
    return SemHiTokMLLMProcessor.for_config(model.config, made(kind), template)


def builder(made_for: SemHiTokMLLMProcessor, **changes) -> SequenceBuilder:
    options = {"learn": "answers", "unconditional": 0.1, "max_length": CONTEXT, "tokenizer": "ours"} | changes
    return SequenceBuilder(made_for, **options)


TALK = (
    Turn("system", "you say what is there"),
    Turn("user", "<image>what is there"),
    Turn("assistant", "a red cat"),
    Turn("user", "and the\n<image> dog?"),
    Turn("assistant", "\nno dog "),
    Turn("user", "two"),
    Turn("user", "what"),
    Turn("assistant", "yes"),
)


def messages(turns: tuple[Turn, ...]) -> list[dict]:
    def parts(turn: Turn) -> list[dict]:
        first, *others = turn.pieces
        found = [{"type": "text", "text": first}]
        for piece in others:
            found += [{"type": "image", "image": np.zeros((8, 8, 3), np.uint8)}, {"type": "text", "text": piece}]
        return found

    return [{"role": turn.role, "content": parts(turn)} for turn in turns]


def chat(turns: tuple[Turn, ...]) -> Record:
    return Record("chat", "r", turns=turns, pictures=(PICTURE,) * sum(len(turn.pieces) - 1 for turn in turns))


def prompt(made_for: SemHiTokMLLMProcessor, turns: tuple[Turn, ...], **options) -> list[int]:
    found = made_for.apply_chat_template(messages(turns), tokenize=True, return_dict=True, **options)
    return found["input_ids"][0].tolist()


def learned(sequence: TokenSequence) -> list[tuple[list[int], list[int]]]:
    """For each run of labels: all ids before it, and the ids to be learned."""
    ids, labels = sequence.ids_L.tolist(), sequence.labels_L.tolist()
    begins = [place for place in range(1, len(ids)) if labels[place] != IGNORED and labels[place - 1] == IGNORED]
    found = []
    for begin in begins:
        end = next((place for place in range(begin, len(ids)) if labels[place] == IGNORED), len(ids))
        assert labels[begin:end] == ids[begin:end]
        found.append((ids[:begin], ids[begin:end]))
    return found


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_before_an_answer_is_what_it_is_generated_from(model, kind: str, template: str):
    made_for = processing(model, kind, TEMPLATES[template])
    sequences = builder(made_for)(chat(TALK), 0.5)
    found = [each for sequence in sequences for each in learned(sequence)]
    ends = [index for index, turn in enumerate(TALK) if turn.role == "assistant"]
    assert len(found) == len(ends)
    assert len(sequences) == (len(ends) if template == "thinking" else 1)
    for (before, answer), end in zip(found, ends, strict=True):
        assert before == prompt(made_for, TALK[:end], add_generation_prompt=True)
        assert answer
    # In later turns, generation has the history that training had.
    whole = sequences[-1].ids_L.tolist()
    assert prompt(made_for, TALK) == whole
    assert len(sequences[0].pictures) * 16 == sequences[0].ids_L.tolist().count(made_for.vocabulary.placeholder_id)


@pytest.mark.parametrize("kind", KINDS)
def test_chats_are_tokenized_as_the_text_tokenizer_would_in_one_go(model, kind: str):
    """Where no token of the text tokenizer spans the border of an answer, cutting the chat there changes nothing."""
    turns = tuple(turn for turn in TALK if "<image>" not in turn.text and not turn.text.startswith("\n"))
    for template in (None, TEMPLATES["vicuna"], TEMPLATES["chatml"]):
        made_for = processing(model, kind, template)
        plain = [{"role": turn.role, "content": turn.text} for turn in turns]
        options = {"chat_template": made_for.chat_template, "tokenize": False}
        text = made(kind).apply_chat_template(plain, **options)
        (sequence,) = builder(made_for, learn="everything")(chat(turns), 0.5)
        assert sequence.ids_L.tolist() == made(kind)(text, add_special_tokens=False)["input_ids"]
        assert sequence.ids_L.tolist() == sequence.labels_L.tolist()
        assert text == made_for.apply_chat_template(plain)


def test_chats_begin_where_texts_begin(model):
    for kind in KINDS:
        made_for = processing(model, kind)
        beginning = made_for.beginning()
        assert bool(beginning) == kind.startswith(("llama", "unigram"))
        ids = prompt(made_for, TALK, add_generation_prompt=True)
        assert ids[: len(beginning)] == beginning
        if beginning:
            assert ids.count(beginning[0]) == 1
        shown = made_for.apply_chat_template(messages(TALK), add_generation_prompt=True)
        pictures = [np.zeros((8, 8, 3), np.uint8)] * 2
        assert made_for(pictures, shown)["input_ids"][0].tolist() == ids, "not once more where a chat is passed on"
    assert prompt(processing(model, "llama", TEMPLATES["chatml"]), TALK)[0] != made("llama").bos_token_id, (
        "other templates are in charge of it themselves"
    )


def test_answers_are_labelled_up_to_their_end(model):
    decode = made("byte-level").decode
    for template, ends in (("chatml", "<|im_end|>\n"), ("told", "<|im_end|>")):
        (sequence,) = builder(processing(model, "byte-level", TEMPLATES[template]))(chat(TALK), 0.5)
        said = [decode(answer) for _, answer in learned(sequence)]
        middle = "\nno dog " if template == "chatml" else "no dog"
        assert said == [f"{text}{ends}" for text in ("a red cat", middle, "yes")]


def test_thoughts_that_are_dropped_later_are_learned_where_they_are_generated(model):
    decode = made("byte-level").decode
    thinking = processing(model, "byte-level", TEMPLATES["thinking"])
    turns = (
        Turn("user", "a"),
        Turn("assistant", "<think>\ntwo\n</think>\n\nyes"),
        Turn("user", "b"),
        Turn("assistant", "no"),
    )
    first, second = builder(thinking)(chat(turns), 0.5)
    said = [decode(answer) for sequence in (first, second) for _, answer in learned(sequence)]
    assert said == ["<think>\ntwo\n</think>\n\nyes<|im_end|>\n", "<think>\n\n</think>\n\nno<|im_end|>\n"]
    assert "two" not in decode(second.ids_L)
    everything = builder(thinking, learn="everything")(chat(turns), 0.5)
    assert [(sequence.labels_L != IGNORED).all() for sequence in everything] == [False, True]


def test_an_answer_to_be_scored_continues_its_prompt(model):
    for kind in KINDS:
        for template in ("own or default", *(("chatml", "told") if kind != "words" else ())):
            made_for = processing(model, kind, TEMPLATES[template])
            asked, answer = messages(TALK[:7]), "a cat"
            whole = [*TALK[:7], Turn("assistant", answer)]
            (before, wanted), *_ = learned(builder(made_for)(chat(tuple(whole)), 0.5)[0])[::-1]
            found = answer_ids(made_for, asked, f" {answer}")
            assert list(prompt_of(made_for, asked).ids) == before
            assert found
            assert list(found) == wanted[: len(found)]


def test_builders_and_chats_go_to_spawned_workers(model):
    build = builder(processing(model, "llama", TEMPLATES["vicuna"]))
    (wanted,), (found,) = (each(chat(TALK), 0.5) for each in (build, pickle.loads(pickle.dumps(build))))
    assert found.ids_L.tolist() == wanted.ids_L.tolist()
    assert found.labels_L.tolist() == wanted.labels_L.tolist()


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[99]['content'] }}",
        "{{ raise_exception('roles must\nalternate') }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ messages[0]['content'] + 1 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}",
        "{% for message in messages %}{{ message['role'] }}{% endfor %}",
    ],
)
def test_what_is_wrong_with_a_template_is_one_sentence(model, template: str):
    made_for = processing(model, "byte-level", template)
    for use, error in (
        (lambda: made_for.apply_chat_template(messages(TALK)), ValueError),
        (lambda: builder(made_for)(chat(TALK), 0.5), RecordError),
    ):
        with pytest.raises(error, match=r"the chat template (cannot be applied|writes 0 of 2 images)") as raised:
            use()
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 400


@pytest.mark.parametrize("template", ["{% for message in messages %}", "{{ messages | nosuch }}"])
def test_what_is_no_template_is_refused_at_once(model, template: str):
    with pytest.raises(ValueError, match=r"^the chat template cannot be read, line 1: "):
        processing(model, "byte-level", template)


def test_the_template_writes_a_chat_a_few_times_however_many_answers_it_has(model, monkeypatch):
    written = []
    render = chat_rendering.render_jinja_template

    def counting(conversations, **options):
        written.append(len(conversations[0]))
        return render(conversations, **options)

    monkeypatch.setattr(chat_rendering, "render_jinja_template", counting)
    turns = (Turn("user", "a"), Turn("assistant", "no")) * 60
    (sequence,) = builder(processing(model, "learned"))(chat(turns), 0.5)
    assert len(learned(sequence)) == 60
    assert sum(written) < 8 * len(turns)


LONG = 5_000_000
ENDLESS = {
    "caption": Record("caption", "r", "a cat " * LONG, pictures=(PICTURE,)),
    "prompt": Record("text_to_image", "r", "a cat " * LONG, pictures=(PICTURE,)),
    "question": Record("chat", "r", turns=(Turn("user", "a cat " * LONG), Turn("assistant", "a"))),
    "answer": Record("chat", "r", turns=(Turn("user", "a"), Turn("assistant", "a cat " * LONG))),
    "answers": Record("chat", "r", turns=(Turn("user", "a"), Turn("assistant", "a")) * 50_000),
    "images": Record(
        "chat", "r", turns=(Turn("user", "<image>" * 9_000), Turn("assistant", "a")), pictures=(PICTURE,) * 9_000
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_cannot_fit_is_refused_before_time_is_spent_on_it(model, name: str):
    build = builder(processing(model, "byte-level", TEMPLATES["chatml"]))
    begun = time.process_time()
    with pytest.raises(
        RecordError, match=rf"^r: [\d,]+ messages of [\d,]+ characters and [\d]+ images do not fit into the {CONTEXT} "
    ):
        build(ENDLESS[name], 0.5)
    assert time.process_time() - begun < 2


def test_of_a_long_text_only_the_beginning_is_tokenized(model):
    made_for = processing(model, "byte-level")
    text = " ".join(np.random.default_rng(0).choice(["a", "red", "cat", "house"], 2_000))
    wanted = builder(made_for)(Record("text", "r", text), 0.5)[0].ids_L.tolist()
    assert wanted == made("byte-level")(text)["input_ids"][:CONTEXT]
    begun = time.process_time()
    assert builder(made_for)(Record("text", "r", text + " a cat" * LONG), 0.5)[0].ids_L.tolist() == wanted
    assert time.process_time() - begun < 2


def test_one_chat_does_not_fill_any_number_of_rows(model, monkeypatch):
    monkeypatch.setattr(sequences, "MAX_ROWS", 1)
    monkeypatch.setattr(sequences, "SHORT", 400)
    build = builder(processing(model, "byte-level", TEMPLATES["thinking"]), max_length=20)
    turns = (Turn("user", "a"), Turn("assistant", "no")) * 6
    with pytest.raises(RecordError, match="r: its 6 answers need more than 1 rows under this chat template"):
        build(chat(turns), 0.5)
    assert build(chat(turns[:2]), 0.5)


def test_long_chats_take_time_in_proportion_to_their_length(model):
    """Of control tokens that are typed, of answers, and where the template writes no control token in between."""
    typed = Record("chat", "r", turns=(Turn("user", "<|im_end|>" * 3_000), Turn("assistant", "a")))
    many = Record("chat", "r", turns=(Turn("user", "what"), Turn("assistant", "a")) * 300)
    for record, template in ((typed, "chatml"), (many, "chatml"), (many, "joining")):
        build = builder(processing(model, "byte-level", TEMPLATES[template]), max_length=100_000)
        begun = time.process_time()
        build(record, 0.5)
        assert time.process_time() - begun < 3
