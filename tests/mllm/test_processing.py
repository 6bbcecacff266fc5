"""Texts, images and conversations to ids, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tests.mllm.tiny_mllm import CONTEXT, image_tokenizer, mllm, processor, text_tokenizer
from transformers import AutoProcessor

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

QWEN_LIKE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm()


@pytest.fixture(scope="module")
def processing(model: SemHiTokForConditionalGeneration) -> SemHiTokMLLMProcessor:
    return processor(model)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def span(processing: SemHiTokMLLMProcessor) -> list[int]:
    vocabulary = processing.vocabulary
    return [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]


def word_ids(text: str) -> list[int]:
    return text_tokenizer()(text)["input_ids"]


@pytest.mark.parametrize("bos", [False, True])
def test_text_alone_is_as_the_text_tokenizer_has_it(model: SemHiTokForConditionalGeneration, bos: bool):
    texts = ["the red cat", "a dog", "draw two blue house and cat"]
    tokenizer = text_tokenizer(bos=bos)
    tokenizer.padding_side = "left"
    wanted = tokenizer(texts, padding=True, return_tensors="pt")
    found = processor(model, bos=bos)(text=texts)
    assert sorted(found) == ["attention_mask", "input_ids"]
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    assert torch.equal(found["attention_mask"], wanted["attention_mask"])


def test_images_stand_where_the_text_says(processing: SemHiTokMLLMProcessor):
    inputs = processing([picture(0), picture(1)], "the <image> and <image> what")
    wanted = [*word_ids("the"), *span(processing), *word_ids("and"), *span(processing), *word_ids("what")]
    assert inputs["input_ids"].tolist() == [wanted]
    assert inputs["attention_mask"].tolist() == [[1] * len(wanted)]
    assert torch.equal(inputs["pixel_values"], processing.image_processor([picture(0), picture(1)])["pixel_values"])


def test_the_begin_of_text_comes_once(model: SemHiTokForConditionalGeneration):
    ids = processor(model, bos=True)([picture(), picture()], "<image> cat <image>")["input_ids"][0].tolist()
    assert ids[0] == 3
    assert ids.count(3) == 1


def test_batches_and_layouts_of_images(processing: SemHiTokMLLMProcessor):
    texts, images = ["<image> cat", "dog", "<image> <image>"], [picture(index) for index in range(3)]
    flat = processing(images, texts)
    nested = processing([images[:1], [], images[1:]], texts)
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(flat[name], nested[name])
    assert flat["input_ids"].shape == (3, 36)
    assert flat["attention_mask"].sum(dim=1).tolist() == [19, 1, 36]
    assert flat["input_ids"][1, -1] == word_ids("dog")[0]
    one = [picture(), np.asarray(picture()), torch.from_numpy(np.asarray(picture()).copy())]
    for image in (*one, [picture()], [[picture()]]):
        assert torch.equal(
            processing(image, "<image>")["pixel_values"], processing(picture(), "<image>")["pixel_values"]
        )


def test_a_batch_answers_like_its_rows(model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor):
    texts, images = ["what is <image>", "a dog", "<image> and <image> is the"], [picture(index) for index in range(3)]
    options = {"max_new_tokens": 8, "eos_token_id": None}
    together = model.generate(**processing(images, texts), **options)[:, -8:]
    alone = [processing(images[:1], texts[:1]), processing(text=texts[1]), processing(images[1:], texts[2:])]
    for row, inputs in zip(together, alone, strict=True):
        assert torch.equal(model.generate(**inputs, **options)[0, -8:], row)


def test_draw_next(model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor):
    asked = processing(text=["draw a cat", "draw"], generation_mode="image")
    assert (asked["input_ids"][:, -1] == model.vocabulary.image_begin_id).all()
    ids = model.generate(**asked, generation_mode="image")
    assert torch.equal(model.generate(**processing(text=["draw a cat", "draw"]), generation_mode="image"), ids)
    images = processing.post_process_multimodal_output(model.decode_image_tokens(ids), generation_mode="image")
    assert [image.size for image in images] == [(32, 32)] * 2
    wanted = processing.image_processor.postprocess(image_tokenizer().decode(ids))
    assert [image.tobytes() for image in images] == [image.tobytes() for image in wanted]


def test_text_comes_back_without_its_images(model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor):
    inputs = processing([picture(), picture()], ["the <image> cat", "<image> a"])
    filled, _ = model.fill_images(inputs["input_ids"], inputs["pixel_values"])
    for ids in (inputs["input_ids"], filled, filled.tolist()):
        assert processing.post_process_image_text_to_text(ids) == ["the cat", "a"]
    ended = torch.tensor([[*word_ids("the cat"), 1]])
    assert processing.post_process_multimodal_output(ended) == ["the cat"]
    assert processing.post_process_multimodal_output(ended, skip_special_tokens=False) == ["the cat <end>"]


def test_interleaved_output_in_order(model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor):
    images = image_tokenizer().encode(processing.image_processor([picture(0), picture(1)])["pixel_values"]).ids
    spans = model.vocabulary.span(images)
    ids = torch.cat([torch.tensor(word_ids("the cat")), spans[0], spans[1], torch.tensor(word_ids("is red"))])
    (parts,) = processing.post_process_multimodal_output(ids[None], generation_mode="interleaved")
    assert parts[0] == "the cat"
    assert parts[3] == "is red"
    assert torch.equal(torch.stack(parts[1:3]), images)


def conversation(image: object) -> list[dict]:
    return [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": " what is the"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "image", "path": image}]},
    ]


def test_conversations(processing: SemHiTokMLLMProcessor, tmp_path: Path):
    picture().save(tmp_path / "one.png")
    text = processing.apply_chat_template(conversation(picture()), add_generation_prompt=True)
    assert text == "user: <image> what is the\nassistant: a cat<end>\nuser: and <image>\nassistant:"
    for image in (picture(), tmp_path / "one.png", str(tmp_path / "one.png")):
        inputs = processing.apply_chat_template(conversation(image), tokenize=True, return_dict=True)
        assert torch.equal(inputs["pixel_values"], processing([picture()] * 2, "<image><image>")["pixel_values"])
        wanted = processing([picture()] * 2, processing.apply_chat_template(conversation(image)))
        assert torch.equal(inputs["input_ids"], wanted["input_ids"])
    both = [conversation(picture()), [{"role": "user", "content": "a dog"}]]
    batch = processing.apply_chat_template(both, tokenize=True, return_dict=True)
    assert batch["input_ids"].shape[0] == 2
    assert batch["pixel_values"].shape[0] == 2
    assert torch.equal(processing.apply_chat_template(both, tokenize=True), batch["input_ids"])


def test_images_beside_the_conversation(processing: SemHiTokMLLMProcessor):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " what"}]}]
    text = processing.apply_chat_template(messages)
    assert text == "user: <image> what\n"
    assert (processing(picture(), text)["input_ids"] == processing.vocabulary.placeholder_id).sum() == 16
    with pytest.raises(ValueError, match="text 0 has 1 <image> and 0 images"):
        processing.apply_chat_template(messages, tokenize=True)


def test_the_text_tokenizers_own_template_is_used(model: SemHiTokForConditionalGeneration, tmp_path: Path):
    tokenizer = text_tokenizer(bos=True)
    tokenizer.chat_template = QWEN_LIKE
    processing = SemHiTokMLLMProcessor.for_config(model.config, tokenizer)
    plain = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "the dog"}]
    parts = [{"role": each["role"], "content": [{"type": "text", "text": each["content"]}]} for each in plain]
    wanted = tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = processing.apply_chat_template(parts, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert 3 not in wanted["input_ids"], "the template is in charge of special tokens"
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    prefilled = processing.apply_chat_template(parts, continue_final_message=True)
    assert prefilled.endswith("<assistant> the dog")


def test_save_and_load(processing: SemHiTokMLLMProcessor, model: SemHiTokForConditionalGeneration, tmp_path: Path):
    model.save_pretrained(tmp_path)
    processing.save_pretrained(tmp_path)
    for loaded in (AutoProcessor.from_pretrained(tmp_path), SemHiTokMLLMProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, SemHiTokMLLMProcessor)
        assert loaded.vocabulary == model.vocabulary
        assert loaded.context_length == CONTEXT
        assert loaded.chat_template == processing.chat_template
        wanted, found = (each([picture()], "the <image> cat", generation_mode="image") for each in (processing, loaded))
        for name in wanted:
            assert torch.equal(found[name], wanted[name])


def test_the_pipeline_of_transformers(
    model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor, monkeypatch: pytest.MonkeyPatch
):
    # It asks for torchvision, which our image processor does not use and a CPU installation does not have.
    monkeypatch.setattr("transformers.pipelines.any_to_any.requires_backends", lambda *arguments: None)
    pipe = transformers.pipeline("any-to-any", model=model, processor=processing, tokenizer=processing.tokenizer)
    prompt = "draw the red cat"
    (drawn,) = pipe(text=prompt, generation_mode="image")
    inputs = processing(text=prompt)
    wanted = model.decode_image_tokens(model.generate(**inputs, generation_mode="image"))
    assert drawn["generated_image"].tobytes() == processing.image_processor.postprocess(wanted)[0].tobytes()
    (answer,) = pipe(text="what is the <image>", images=picture(), max_new_tokens=5)
    found = model.generate(**processing(picture(), "what is the <image>"), max_new_tokens=5)
    assert answer["generated_text"].split()[:2] == ["what", "is"]
    assert answer["generated_text"].endswith(processing.post_process_image_text_to_text(found[:, -2:])[0].strip())
    (chat,) = pipe(text=conversation(picture()), max_new_tokens=5)
    assert chat["generated_text"][-1]["role"] == "assistant"


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ([], "a <image>", "the text has 1 <image> and 0 images were given"),
        ([picture()], "a cat", "the text has 0 <image> and 1 images were given"),
        ([picture()] * 3, ["<image>", "<image>"], "the text has 2 <image> and 3 images were given"),
        ([[picture()], []], ["<image>", "<image>"], "text 1 has 1 <image> and 0 images"),
        ([[picture()]], ["<image>", "a"], "lists for 1 texts, got 2"),
        (None, "", "the prompt is empty"),
        (None, ["a cat", " \n"], "the prompt is empty"),
        (
            None,
            "a " * (CONTEXT + 1),
            f"a text has {CONTEXT + 1} tokens, the context of the language model is {CONTEXT}",
        ),
        (None, None, "text is missing"),
    ],
)
def test_bad_input(processing: SemHiTokMLLMProcessor, images: object, text: object, message: str):
    with pytest.raises(ValueError, match=message):
        processing(images, text)


def test_tokenizers_that_do_not_match(model: SemHiTokForConditionalGeneration, processing: SemHiTokMLLMProcessor):
    with pytest.raises(ValueError, match="the text tokenizer has 78 ids, the language model only 64"):
        SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer(*[f"<{index}>" for index in range(60)]))
    other = processor(mllm(tokenizer=image_tokenizer_of_more_tokens()))
    with pytest.raises(
        ValueError, match="64 placeholder ids at 1 places, but an image has 16 tokens: the processor belongs"
    ):
        model.generate(**other(picture(), "a <image>"))
    marks = text_tokenizer("<|vision_start|>", "<|vision_end|>")
    own = SemHiTokMLLMProcessor.for_config(mllm(text=marks).config, marks)
    with pytest.raises(ValueError, match="contains the image marks"):
        own(text="a <|vision_start|> cat")
    assert own(picture(), "a <image>")["input_ids"][0, 1] == marks.convert_tokens_to_ids("<|vision_start|>")


def image_tokenizer_of_more_tokens():
    from tests.tiny import tiny_model, tower_config

    from semhitok.teachers import TeacherConfig

    return tiny_model(patch_size=4, teacher_config=TeacherConfig(tower_config(patch_size=4), image_size=32))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user"}],
        ["a cat"],
        [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}],
        [{"role": "user", "content": [{"text": "a"}]}],
    ],
)
def test_bad_conversations(processing: SemHiTokMLLMProcessor, messages: list):
    with pytest.raises(ValueError, match=r"a message needs role and content|a part of a message must be"):
        processing.apply_chat_template([messages] if isinstance(messages[0], str) else messages)
