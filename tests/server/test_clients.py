"""OpenAI's own Python client against a live server; answers are those of the package without a server."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from PIL import Image
from tests.server.live import NAME, Live, data_url, png

from semhitok import ImageGenerator
from semhitok.inference.text_generation import AnswerOptions, generate_text
from semhitok.mllm import Sampling

QUESTION = "what is there"


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0)


def chat(text: str, *images: bytes) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def answer_alone(live: Live, text: str, images: list[bytes], **options) -> tuple[str, int]:
    """The answer by transformers' ``generate``, and the length of the prompt."""
    model, processor = live.state.model.language
    parts = [{"type": "image", "image": image} for image in images]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    (found,) = generate_text(model, processor, inputs, AnswerOptions(**options))
    return found.text.strip(), inputs["input_ids"].shape[1]


def test_a_chat_about_images(live: Live, client):
    images = [png(1), png(2)]
    answer = client.chat.completions.create(model=NAME, messages=chat(QUESTION, *images), max_tokens=20)
    wanted, length = answer_alone(live, QUESTION, images, max_new_tokens=20)
    assert answer.choices[0].message.content == wanted
    assert len(wanted.split()) > 5
    assert (answer.object, answer.choices[0].finish_reason, answer.model) == ("chat.completion", "length", NAME)
    assert answer.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": length,
        "completion_tokens": 20,
        "total_tokens": length + 20,
    }


def test_a_stream(live: Live, client):
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 20}
    events = list(client.chat.completions.create(model=NAME, messages=chat(QUESTION, png(1)), **options))
    pieces = [event.choices[0].delta.content for event in events if event.choices and event.choices[0].delta.content]
    wanted, length = answer_alone(live, QUESTION, [png(1)], max_new_tokens=20)
    assert "".join(pieces) == wanted
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "length"
    assert (events[-1].choices, events[-1].usage.completion_tokens, events[-1].usage.prompt_tokens) == ([], 20, length)
    assert len({event.id for event in events}) == 1


def test_stop_strings_end_an_answer(live: Live, client):
    whole, _ = answer_alone(live, QUESTION, [png(1)], max_new_tokens=30)
    stop = " ".join(whole.split()[3:5])
    wanted = whole[: whole.index(stop)].strip()
    for stream in (False, True):
        made = client.chat.completions.create(
            model=NAME, messages=chat(QUESTION, png(1)), max_tokens=30, stop=["never", stop], stream=stream
        )
        if stream:
            events = list(made)
            text = "".join(event.choices[0].delta.content or "" for event in events)
            reason = events[-1].choices[0].finish_reason
        else:
            text, reason = made.choices[0].message.content, made.choices[0].finish_reason
            assert made.usage.completion_tokens < 30
        assert (text, reason) == (wanted, "stop")


def test_sampled_answers_follow_their_seed(client):
    def ask(**options) -> str:
        made = client.chat.completions.create(model=NAME, messages=chat(QUESTION), max_tokens=20, **options)
        return made.choices[0].message.content

    options = {"temperature": 1.5, "top_p": 0.9, "extra_body": {"top_k": 12}}
    assert ask(seed=1, **options) == ask(seed=1, **options) != ask(seed=2, **options)
    assert ask(temperature=1.5, top_p=0.0) == ask(temperature=0.0) == ask()


def test_a_conversation_of_several_turns(live: Live, client):
    messages = [
        {"role": "system", "content": "a big house"},
        *chat("what is there", png(3)),
        {"role": "assistant", "content": "a red cat"},
        {"role": "user", "content": "is the cat red"},
    ]
    made = client.chat.completions.create(model=NAME, messages=messages, max_tokens=5)
    model, processor = live.state.model.language
    own = [messages[0], {**messages[1], "content": [{"type": "image", "image": png(3)}, *messages[1]["content"][1:]]}]
    inputs = processor.apply_chat_template(
        [*own, *messages[2:]], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    (wanted,) = generate_text(model, processor, inputs, AnswerOptions(5))
    assert made.choices[0].message.content == wanted.text.strip()


def test_images_are_those_of_the_generator(live: Live, client):
    options = {"guidance": 2.0, "seed": 5, "temperature": 0.8, "top_k": 20}
    made = client.images.generate(model=NAME, prompt="draw a red cat", n=3, size="32x32", extra_body=options)
    generator = ImageGenerator(*live.state.model.language, 2.0, Sampling(temperature=0.8, top_k=20))
    wanted = generator(["draw a red cat"] * 3, [5, 6, 7])
    for image, own in zip(made.data, wanted, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(image.b64_json))) as found:
            assert found.tobytes() == own.tobytes()
    assert len({image.b64_json for image in made.data}) == 3
    assert (made.usage.output_tokens, made.data[2].model_extra["seed"]) == (48, 7)


def test_images_are_sampled_as_the_model_says(live: Live, client, monkeypatch):
    monkeypatch.setattr(live.state.model.language[0].config, "image_top_k", 2)
    monkeypatch.setattr(live.state.model.language[0].config, "image_guidance", 1.5)
    made = client.images.generate(prompt="a red cat", extra_body={"seed": 3}).data[0]
    (wanted,) = ImageGenerator(*live.state.model.language, 1.5, Sampling(top_k=2))(["a red cat"], [3])
    with Image.open(io.BytesIO(base64.b64decode(made.b64_json))) as found:
        assert found.tobytes() == wanted.tobytes()


def test_many_at_once_get_what_each_would_get_alone(live: Live, client):
    questions = ["a", "the red cat is big", "what", "is there a dog and a cat and two house", "two blue dog"]
    wanted = [
        answer_alone(live, text, [png(place)], max_new_tokens=10 + 3 * place) for place, text in enumerate(questions)
    ]
    drawn = client.images.generate(prompt="a dog", extra_body={"temperature": 0}).data[0].b64_json
    passes = live.state.metrics.rows

    def counted() -> float:
        return sum(sample.value for sample in passes.collect()[0].samples if sample.name.endswith("_count"))

    def ask(place: int) -> str:
        if place % 6 == 5:
            return client.images.generate(prompt="a dog", extra_body={"temperature": 0}).data[0].b64_json
        place = place % 6
        made = client.chat.completions.create(
            model=NAME, messages=chat(questions[place], png(place)), max_tokens=10 + 3 * place
        )
        return made.choices[0].message.content

    before = counted()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(24)))
    for place, answer in enumerate(answers):
        assert answer == (drawn if place % 6 == 5 else wanted[place % 6][0])
    assert counted() - before < 24 * 16 / 2, "passes are shared"


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, client.models.retrieve(NAME).id) == (NAME, "semhitok", NAME)
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.models.retrieve("gpt-4")


def test_errors_reach_the_client(client):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        client.chat.completions.create(model="gpt-4", messages=chat("a"))
    part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with pytest.raises(openai.BadRequestError, match="not fetched from the network") as caught:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": [part]}])
    assert (caught.value.param, caught.value.code) == ("messages.0.content.0", "invalid_image_url")
