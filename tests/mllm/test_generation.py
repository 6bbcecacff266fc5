"""Generation: our loop against that of transformers, and what may follow what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.mllm.tiny_mllm import (
    CONTEXT,
    LANGUAGE_MODELS,
    TEXT_SIZE,
    codes_mllm,
    image_tokenizer,
    language_model,
    mixed_ids,
    mllm,
    text_tokenizer,
)
from tests.tiny import pixels
from torch import Tensor

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm()


def prompts(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(4, TEXT_SIZE, (batch, length), generator=torch.Generator().manual_seed(seed))


def left_padded(*rows: Tensor) -> dict[str, Tensor]:
    length = max(row.shape[1] for row in rows)
    ids = torch.cat([F.pad(row, (length - row.shape[1], 0)) for row in rows])
    mask = torch.cat([F.pad(torch.ones_like(row), (length - row.shape[1], 0)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_text_is_that_of_the_language_model(name: str):
    original, model, ids = language_model(name), mllm(name), prompts(2, 6)
    wanted = original.generate(ids, max_new_tokens=12)
    assert torch.equal(model.generate(ids, max_new_tokens=12), wanted)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=12, cache_implementation="static"), wanted)
    assert torch.equal(model.generate(ids, max_new_tokens=12, use_cache=False), wanted)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("guidance", [1.0, 2.5, 7.0])
def test_fast_guidance_equals_that_of_transformers(name: str, guidance: float):
    model = mllm(name)
    batch = left_padded(prompts(1, 7), prompts(1, 3, seed=1), prompts(1, 7, seed=2))
    wanted = model.generate(**batch, generation_mode="image", guidance_scale=guidance)
    found = model.generate_images(**batch, guidance=guidance, sampling=GREEDY)
    assert torch.equal(found, wanted)
    assert found.shape == (3, 16)
    assert len(found.unique()) > 8
    alone = [
        model.generate_images(prompts(1, length, seed), guidance=guidance, sampling=GREEDY)
        for length, seed in ((7, 0), (3, 1), (7, 2))
    ]
    assert torch.equal(found, torch.cat(alone))


def test_guidance_with_negative_prompts_equals_that_of_transformers(model: SemHiTokForConditionalGeneration):
    batch, negative = left_padded(prompts(1, 4), prompts(1, 2, seed=1)), left_padded(prompts(1, 6, 3), prompts(1, 5, 4))
    stock = {"negative_prompt_ids": negative["input_ids"], "negative_prompt_attention_mask": negative["attention_mask"]}
    wanted = model.generate(**batch, generation_mode="image", guidance_scale=3.0, **stock)
    options = {"negative_ids": negative["input_ids"], "negative_attention_mask": negative["attention_mask"]}
    assert torch.equal(model.generate_images(**batch, guidance=3.0, sampling=GREEDY, **options), wanted)
    assert not torch.equal(model.generate_images(**batch, guidance=3.0, sampling=GREEDY), wanted)
    one = model.generate_images(**batch, guidance=3.0, sampling=GREEDY, negative_ids=prompts(1, 6, 3))
    assert torch.equal(one[0], wanted[0])


def test_guidance_by_its_definition(model: SemHiTokForConditionalGeneration):
    """Both prompts whole in every step, without cache or padding."""
    prompt, begin, chosen = prompts(1, 5), torch.tensor([[model.vocabulary.image_begin_id]]), torch.zeros(1, 0).long()
    for _ in range(16):
        with torch.no_grad():
            conditional, unconditional = (
                model(input_ids=torch.cat([*before, begin, chosen + TEXT_SIZE], dim=1))
                .logits[:, -1, TEXT_SIZE : TEXT_SIZE + 64]
                .log_softmax(-1)
                for before in ([prompt], [])
            )
        guided = unconditional + 4.0 * (conditional - unconditional)
        chosen = torch.cat([chosen, guided.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(model.generate_images(prompt, guidance=4.0, sampling=GREEDY), chosen)


def test_static_cache_draws_the_same(model: SemHiTokForConditionalGeneration):
    ids = prompts(2, 5)
    wanted = model.generate(ids, generation_mode="image")
    assert torch.equal(model.generate(ids, generation_mode="image", cache_implementation="static"), wanted)
    assert torch.equal(model.generate(ids, generation_mode="image", use_cache=False), wanted)


def test_images_in_the_prompt(model: SemHiTokForConditionalGeneration):
    vocabulary, images = model.vocabulary, pixels(1)
    span = [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]
    ids = torch.tensor([[4, *span, 5, 6]])
    filled = torch.cat([ids[:, :1], vocabulary.span(image_tokenizer().encode(images).ids), ids[:, -2:]], dim=1)
    text = model.generate(ids, pixel_values=images, max_new_tokens=8)
    assert torch.equal(text, model.generate(filled, max_new_tokens=8))
    assert torch.equal(text, model.generate(ids, pixel_values=images, max_new_tokens=8, use_cache=False))
    assert torch.equal(text[:, : filled.shape[1]], filled)
    drawn = model.generate_images(ids, pixel_values=images, guidance=2.0, sampling=GREEDY)
    assert torch.equal(drawn, model.generate(filled, generation_mode="image", guidance_scale=2.0))


def fond_of_images(name: str = "qwen2, tied") -> SemHiTokForConditionalGeneration:
    """Everywhere the most likely ids are visual ids and the image marks."""
    model, generator = mllm(name), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.lm_head.weight[TEXT_SIZE:], std=20.0, generator=generator)
    return model


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "top_k": 0}, {"guidance_scale": 2.0}])
def test_text_mode_yields_text_only(options: dict):
    model = fond_of_images()
    free = model(input_ids=prompts(2, 5)).logits.argmax(-1)
    assert (free >= TEXT_SIZE).float().mean() > 0.9, "the mask has something to do"
    found = model.generate(prompts(2, 5), max_new_tokens=30, eos_token_id=None, **options)
    assert found.shape == (2, 35)
    assert found.max() < TEXT_SIZE


def test_own_marks_are_no_text():
    model = mllm(text=text_tokenizer("<|vision_start|>", "<|vision_end|>"))
    marks = [model.vocabulary.image_begin_id, model.vocabulary.image_end_id]
    with torch.no_grad():
        model.lm_head.weight[marks] = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 30
    free = model(input_ids=prompts(1, 30)).logits.argmax(-1)
    assert torch.isin(free, torch.tensor(marks)).float().mean() > 0.5
    found = model.generate(prompts(1, 5), max_new_tokens=30, do_sample=True, eos_token_id=None)[:, 5:]
    assert not torch.isin(found, torch.tensor(marks)).any()
    drawn = model.generate(prompts(1, 5), generation_mode="image")
    assert torch.equal(drawn, model.generate_images(prompts(1, 5), sampling=GREEDY))


def test_interleaved_images_are_exactly_n_visual_ids():
    model = fond_of_images()
    torch.manual_seed(0)
    found = model.generate(
        prompts(12, 4), generation_mode="interleaved", max_new_tokens=60, do_sample=True, top_k=0, eos_token_id=None
    )
    assert found.shape == (12, 64)
    vocabulary = model.vocabulary
    begins = (found == vocabulary.image_begin_id).sum(dim=1)
    assert begins.max() >= 2, "several images in one text"
    for row, count in zip(found, begins, strict=True):
        vocabulary.check_spans(row[None])
        assert vocabulary.is_visual(row).sum() == 16 * count
        assert (row == vocabulary.image_end_id).sum() == count, "no image was begun that could not be finished"


def test_interleaved_finishes_an_image_of_the_prompt():
    model = fond_of_images()
    ids = mixed_ids(model, 1)[:, :9]  # begin and five visual ids
    found = model.generate(ids, generation_mode="interleaved", max_new_tokens=12, eos_token_id=None)
    assert model.vocabulary.is_visual(found[0, 4:20]).all()
    assert found[0, 20] == model.vocabulary.image_end_id


def test_seeds(model: SemHiTokForConditionalGeneration):
    ids = prompts(1, 5).repeat(3, 1)
    batch = model.generate_images(ids, sampling=Sampling(seed=7), guidance=2.0)
    assert torch.equal(model.generate_images(ids, sampling=Sampling(seed=7), guidance=2.0), batch)
    assert len({tuple(row) for row in batch.tolist()}) == 3, "each image of a batch has its own seed"
    for row in range(3):
        alone = model.generate_images(ids[:1], sampling=Sampling(seed=7 + row), guidance=2.0)
        assert torch.equal(alone[0], batch[row])
    torch.manual_seed(0)
    one = model.generate(ids, generation_mode="image", do_sample=True)
    torch.manual_seed(0)
    assert torch.equal(model.generate(ids, generation_mode="image", do_sample=True), one)


def test_text_settings_of_the_language_model_do_not_reach_images():
    model, ids = mllm(), prompts(2, 5)
    wanted = model.generate(ids, generation_mode="image")
    model.generation_config.update(do_sample=True, top_k=3, temperature=0.1, repetition_penalty=5.0)
    assert torch.equal(model.generate(ids, generation_mode="image"), wanted)
    torch.manual_seed(1)
    drawn = model.generate(ids.repeat(20, 1), generation_mode="image", do_sample=True)
    assert len(drawn[:, 0].unique()) > 3


@pytest.mark.parametrize("several", [False, True])
def test_images_are_sampled_from_as_many_ids_as_the_model_says(several: bool):
    model, ids = codes_mllm(image_top_k=1) if several else mllm(image_top_k=1), prompts(2, 5)
    wanted = model.generate(ids, generation_mode="image")
    assert torch.equal(model.generate(ids, generation_mode="image", do_sample=True), wanted)
    assert torch.equal(model.generate_images(ids), wanted)
    assert not torch.equal(model.generate(ids, generation_mode="image", do_sample=True, top_k=0), wanted)
    assert not torch.equal(model.generate_images(ids, sampling=Sampling()), wanted)


def test_rows_arrive_one_by_one(model: SemHiTokForConditionalGeneration):
    ids, options = prompts(2, 5), {"guidance": 2.0, "sampling": Sampling(seed=1)}
    whole = model.generate_images(ids, **options)
    rows = list(model.stream_images(ids, **options))
    assert [row.shape for row in rows] == [(2, 4), (2, 8), (2, 12), (2, 16)]
    for row in rows:
        assert torch.equal(row, whole[:, : row.shape[1]])


def test_partial_images_show_what_was_drawn_and_grey(model: SemHiTokForConditionalGeneration):
    whole = model.generate_images(prompts(2, 5), sampling=Sampling(seed=1))
    for rows in (1, 2, 3, 4):
        partial = model.decode_partial(whole[:, : rows * 4])
        filled = torch.cat([whole[:, : rows * 4], *[whole[:, rows * 4 - 4 : rows * 4]] * (4 - rows)], dim=1)
        wanted = image_tokenizer().decode(filled)
        assert partial.shape == (2, 3, 32, 32)
        assert torch.equal(partial[:, :, : rows * 8], wanted[:, :, : rows * 8])
        assert not partial[:, :, rows * 8 :].any()
    assert torch.equal(model.decode_partial(whole), model.decode_image_tokens(whole))
    with pytest.raises(ValueError, match="between one row of 4 tokens and 4 rows, got 3"):
        model.decode_partial(whole[:, :3])


def test_only_visual_rows_of_the_head_are_multiplied(model: SemHiTokForConditionalGeneration, monkeypatch):
    seen = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda x, weight, bias=None: seen.append(weight) or linear(x, weight, bias))
    model.generate_images(prompts(1, 3), guidance=2.0)
    head = model.lm_head.weight
    shared = [each for each in seen if each.untyped_storage().data_ptr() == head.untyped_storage().data_ptr()]
    assert [(len(each), each.storage_offset()) for each in shared] == [(64, TEXT_SIZE * 32)] * 16
    seen.clear()
    model.generate(prompts(1, 3), max_new_tokens=4, eos_token_id=None)
    shared = [each for each in seen if each.untyped_storage().data_ptr() == head.untyped_storage().data_ptr()]
    assert [len(each) for each in shared] == [TEXT_SIZE] * 4


@pytest.mark.parametrize(
    ("ids", "mode", "message"),
    [
        ([], "text", "needs at least one token"),
        ([], "image", "needs at least one token"),
        (
            [4] * CONTEXT,
            "text",
            f"a prompt of {CONTEXT} tokens with 1 to follow is longer than the context of {CONTEXT}",
        ),
        ([4] * (CONTEXT - 16), "image", f"a prompt of {CONTEXT - 15} tokens with 16 to follow is longer"),
        ([4, TEXT_SIZE, 5], "text", "visual id 64 at position 1 is outside an image"),
        ([4, TEXT_SIZE, 5], "interleaved", "is outside an image"),
        ([4, 128, TEXT_SIZE], "text", "ends inside an image"),
        ([4, 128, TEXT_SIZE], "image", "ends inside an image"),
        ([4, 128], "text", "ends inside an image"),
        ([4, 131], "text", r"\[0, 130\), got 131"),
        ([4, 128, *[130] * 16, 129], "text", "places for 1 images, got 0"),
        ([4], "picture", "must be text, image or interleaved, got 'picture'"),
    ],
)
def test_bad_prompts(model: SemHiTokForConditionalGeneration, ids: list[int], mode: str, message: str):
    batch = torch.tensor([ids], dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        model.generate(batch, generation_mode=mode)
    if mode == "image":
        with pytest.raises(ValueError, match=message):
            model.stream_images(batch)


def test_more_bad_input(model: SemHiTokForConditionalGeneration):
    ids = prompts(2, 4)
    for scale in (0, -1.5, float("nan")):
        with pytest.raises(ValueError, match=f"guidance must be above 0 .*, got {scale}"):
            model.generate(ids, generation_mode="image", guidance_scale=scale)
        with pytest.raises(ValueError, match=f"guidance must be above 0 .*, got {scale}"):
            model.generate_images(ids, guidance=scale)
    with pytest.raises(ValueError, match="the prompt is missing"):
        model.generate()
    with pytest.raises(ValueError, match="a row of padding only"):
        model.generate(ids, attention_mask=torch.tensor([[1] * 4, [0] * 4]))
    with pytest.raises(ValueError, match="1 of 2 prompts end with the image begin id"):
        model.generate(torch.tensor([[4, 5], [4, 128]]), generation_mode="image")
    with pytest.raises(ValueError, match="must hold 1 or 2 prompts, got 3"):
        model.generate_images(ids, guidance=2.0, negative_ids=prompts(3, 2))
