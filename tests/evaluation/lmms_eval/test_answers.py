"""Answers as benchmarks want them generated, and the likelihood of given ones."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.benchmark_model import picture, talking_model, text_tokenizer
from tests.mllm.tiny_mllm import CONTEXT, codes_mllm

from semhitok.evaluation.lmms_eval.answers import answer_likelihoods, generate_answers, read_options
from semhitok.inference.text_generation import AnswerOptions, before_stop
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return talking_model()


@pytest.fixture(scope="module")
def processor(model: SemHiTokForConditionalGeneration) -> SemHiTokMLLMProcessor:
    return SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer())


def question(text: str, *images: object) -> list[dict]:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


CONVERSATIONS = [
    question("is there a cat", picture(0)),
    question("what is blue and what is red", picture(1), picture(2)),
    question("draw"),
]


def directly(model, processor, conversation: list[dict], **options) -> torch.Tensor:
    """Generated ids of one conversation, by processor and model alone."""
    inputs = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    found = model.generate(**inputs, do_sample=False, pad_token_id=0, **options)
    return found[0, inputs["input_ids"].shape[1] :]


def test_greedy_answers_are_those_of_the_model(model, processor):
    answers = generate_answers(model, processor, CONVERSATIONS, AnswerOptions(max_new_tokens=8))
    for conversation, answer in zip(CONVERSATIONS, answers, strict=True):
        ids = directly(model, processor, conversation, max_new_tokens=8)
        assert answer.text == processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.tokens == len(ids)
        assert not answer.cut
    assert len({answer.text for answer in answers}) == 3


def test_nothing_of_the_models_own_sampling_is_used(model, processor):
    plain = generate_answers(model, processor, CONVERSATIONS, AnswerOptions(max_new_tokens=8))
    before = model.generation_config
    model.generation_config = type(before)(
        **(before.to_dict() | {"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 5.0})
    )
    try:
        assert generate_answers(model, processor, CONVERSATIONS, AnswerOptions(max_new_tokens=8)) == plain
    finally:
        model.generation_config = before


def test_drawn_answers_follow_the_seed(model, processor):
    options = AnswerOptions(max_new_tokens=12, temperature=3.0)

    def drawn(seed: int, options: AnswerOptions = options) -> list[str]:
        torch.manual_seed(seed)
        return [answer.text for answer in generate_answers(model, processor, CONVERSATIONS, options)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    greedy = generate_answers(model, processor, CONVERSATIONS, AnswerOptions(max_new_tokens=12))
    for single in (AnswerOptions(12, temperature=3.0, top_k=1), AnswerOptions(12, temperature=3.0, top_p=0.0)):
        assert drawn(2, single) == [answer.text for answer in greedy]


def test_stop_strings_end_answers_early(model, processor):
    whole = generate_answers(model, processor, CONVERSATIONS, AnswerOptions(max_new_tokens=40))
    words = [answer.text.split() for answer in whole]
    stop = f"{words[1][3]} {words[1][4]}"  # two words of the second answer
    answers = generate_answers(model, processor, CONVERSATIONS, AnswerOptions(40, stops=("never", stop)))
    for answer, plain in zip(answers, whole, strict=True):
        assert answer.text == plain.text.split(stop)[0]
    assert answers[1].text != whole[1].text
    assert answers[1].tokens <= 5 < whole[1].tokens == 40


def test_the_first_stop_counts():
    assert before_stop("a b c", ("c", "b")) == "a "
    assert before_stop("a b c", ("d",)) == "a b c"
    assert before_stop("a b c", ()) == "a b c"


def test_answers_end_with_the_context_and_long_prompts_are_cut(model, processor):
    long, short = question("red " * 300 + "is there a cat", picture(0)), CONVERSATIONS[0]
    cut, plain = generate_answers(model, processor, [long, short], AnswerOptions(max_new_tokens=1000))
    assert cut.cut
    assert not plain.cut
    assert cut.tokens == CONTEXT // 4
    prompt = processor.apply_chat_template(short, add_generation_prompt=True, tokenize=True, return_dict=True)
    room = CONTEXT - prompt["input_ids"].shape[1]
    assert plain.tokens == room
    assert plain.text == processor.tokenizer.decode(
        directly(model, processor, short, max_new_tokens=room), skip_special_tokens=True
    )
    # The cut prompt is the image and the end of the text.
    whole = processor.token_ids(
        processor.apply_chat_template(long, add_generation_prompt=True), add_special_tokens=False
    )
    span = model.vocabulary.span_length
    ids = torch.tensor([[*whole[1 : 1 + span], *whole[-(CONTEXT * 3 // 4 - span) :]]])
    pixels = processor.image_processor([picture(0)])["pixel_values"]
    wanted = model.generate(ids, pixel_values=pixels, max_new_tokens=40, do_sample=False, pad_token_id=0)[
        0, ids.shape[1] :
    ]
    assert cut.text == processor.tokenizer.decode(wanted, skip_special_tokens=True)


ANSWERS = ["the red dog", " cat", "a big house and a dog"]


def brute_force(model, processor, conversation: list[dict], answer: str) -> tuple[float, bool]:
    """One full pass for each word of the answer, without batch, padding or cache; one word is one id."""
    inputs = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids, total, greedy = inputs["input_ids"], 0.0, True
    for word in answer.split():
        with torch.no_grad():
            logits = model(ids, pixel_values=inputs.get("pixel_values"), use_cache=False).logits[0, -1]
        text = logits[: model.vocabulary.text_size].double().log_softmax(dim=-1)
        target = processor.tokenizer(word)["input_ids"][0]
        total, greedy = total + float(text[target]), greedy and int(text.argmax()) == target
        ids = torch.cat([ids, torch.tensor([[target]])], dim=1)
    return total, greedy


def test_likelihoods_by_brute_force(model, processor):
    found = answer_likelihoods(model, processor, CONVERSATIONS, ANSWERS)
    for conversation, answer, likelihood in zip(CONVERSATIONS, ANSWERS, found, strict=True):
        total, greedy = brute_force(model, processor, conversation, answer)
        assert likelihood.log_probability == pytest.approx(total, rel=1e-5)
        assert likelihood.greedy == greedy
        assert not likelihood.cut


def test_greedy_answers_are_known_as_such(model, processor):
    generated = [answer.text for answer in generate_answers(model, processor, CONVERSATIONS, AnswerOptions(4))]
    assert all(likelihood.greedy for likelihood in answer_likelihoods(model, processor, CONVERSATIONS, generated))


def test_empty_and_endless_answers(model, processor):
    empty, endless = answer_likelihoods(model, processor, CONVERSATIONS[:1] * 2, ["", "dog " * 500])
    assert (empty.log_probability, empty.greedy, empty.cut) == (0.0, True, False)
    assert endless.cut
    assert endless.log_probability < 0


def test_several_codes_per_token():
    model = codes_mllm(text=text_tokenizer())
    processor = SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer())
    conversation = question("is there a cat", picture(3))
    (answer,) = generate_answers(model, processor, [conversation], AnswerOptions(max_new_tokens=6))
    ids = directly(model, processor, conversation, max_new_tokens=6)
    assert answer.text == processor.tokenizer.decode(ids, skip_special_tokens=True)
    (likelihood,) = answer_likelihoods(model, processor, [conversation], ["the red dog"])
    assert likelihood.log_probability == pytest.approx(
        brute_force(model, processor, conversation, "the red dog")[0], rel=1e-5
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, AnswerOptions(7)),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 0, "do_sample": False}, AnswerOptions(16)),
        ({"temperature": 0.2, "do_sample": False}, AnswerOptions(7)),
        ({"temperature": 0.2}, AnswerOptions(7, temperature=0.2)),
        ({"do_sample": True, "top_p": 0.9, "top_k": 5}, AnswerOptions(7, temperature=1.0, top_p=0.9, top_k=5)),
        ({"do_sample": True, "temperature": 0}, AnswerOptions(7)),
        ({"top_p": None, "num_beams": 3, "repetition_penalty": 1.2}, AnswerOptions(7, 0.0, 1.0, 0, 3, 1.2)),
        ({"until": "ASSISTANT:"}, AnswerOptions(7, stops=("ASSISTANT:",))),
        ({"until": ["\n\n"]}, AnswerOptions(7)),
        ({"until": ["\n\n", "."]}, AnswerOptions(7, stops=("\n\n", "."))),
        ({"until": None}, AnswerOptions(7)),
    ],
)
def test_what_tasks_say_about_generation(given: dict, wanted: AnswerOptions):
    assert read_options(given, 7) == (wanted, frozenset())


def test_what_means_nothing_is_named():
    options, unread = read_options({"image_aspect_ratio": "original", "visual_cot": True, "max_new_tokens": "9"}, 7)
    assert options == AnswerOptions(9)
    assert unread == {"image_aspect_ratio", "visual_cot"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": "many"}, "max_new_tokens must be a number, got 'many'"),
        ({"temperature": -1.0, "do_sample": True}, "temperature must be at least 0, got -1.0"),
        ({"top_p": 2, "do_sample": True}, "top_p must lie in"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
    ],
)
def test_bad_values_are_named(given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        read_options(given, 7)
