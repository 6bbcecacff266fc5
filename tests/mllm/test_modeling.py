"""The model against the language model it is made of, and its ways of running against each other."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.mllm.tiny_mllm import (
    LANGUAGE_MODELS,
    SIZES,
    TEXT_SIZE,
    WORDS,
    image_tokenizer,
    language_model,
    mixed_ids,
    mllm,
    text_tokenizer,
)
from tests.tiny import changed, copy_of, pixels, processes, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM, GraniteConfig

from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMConfig

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return mllm()


@pytest.fixture(scope="module")
def saved(model: SemHiTokForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: SemHiTokForConditionalGeneration, ids: Tensor, **options) -> Tensor:
    return model(input_ids=ids, **options).logits


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_text_logits_are_those_of_the_language_model(name: str):
    original, ids = language_model(name), torch.randint(TEXT_SIZE, (3, 20))
    with torch.no_grad():
        wanted = original(input_ids=ids).logits
        model = SemHiTokForConditionalGeneration.from_language_model(language_model(name), tiny_model())
        close(logits(model, ids)[..., :TEXT_SIZE], wanted, atol=1e-5, rtol=0)
        close(logits(model, ids, text_only=True), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_only_the_head_grows(name: str):
    original = language_model(name)
    text_head = original.get_output_embeddings().weight.detach().clone()
    model = SemHiTokForConditionalGeneration.from_language_model(original, tiny_model())
    assert model.get_input_embeddings().weight.shape == (TEXT_SIZE, 32)
    assert model.lm_head.weight.shape == (TEXT_SIZE + 64 + 2, 32)
    assert model.lm_head.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr(), "untied"
    assert torch.equal(model.lm_head.weight[:TEXT_SIZE], text_head)
    close(model.lm_head.weight[TEXT_SIZE:], text_head.mean(dim=0).expand(66, -1))


def test_own_marks_need_no_further_ids():
    marks = text_tokenizer("<|vision_start|>", "<|vision_end|>")
    model = mllm(text=marks)
    begin, end = marks.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    assert (model.vocabulary.image_begin_id, model.vocabulary.image_end_id) == (begin, end)
    assert model.controls is None
    assert len(model.lm_head.weight) == TEXT_SIZE + 64
    assert mllm(text=text_tokenizer()).vocabulary.image_begin_id == TEXT_SIZE + 64


def test_visual_ids_follow_the_padded_text_vocabulary():
    tokenizer = text_tokenizer()
    assert len(tokenizer) < TEXT_SIZE
    model = mllm(text=tokenizer)
    pixel_values, vocabulary = pixels(1), model.vocabulary
    prompt = torch.tensor([[vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]])
    filled, _ = model.fill_images(prompt, pixel_values)
    assert torch.equal(filled[0, 1:-1], TEXT_SIZE + image_tokenizer().encode(pixel_values).ids[0])


@torch.no_grad()
def test_visual_embeddings_are_the_adapter_of_the_tokenizers_features(model: SemHiTokForConditionalGeneration):
    ids = mixed_ids(model)
    embeds, table = model.embed(ids), model.get_input_embeddings().weight
    for row, position in [(0, 0), (1, 2), (0, -1)]:
        assert torch.equal(embeds[row, position], table[ids[row, position]])
    assert torch.equal(embeds[:, 3], model.controls.weight[0].expand(2, -1))
    assert torch.equal(embeds[:, 20], model.controls.weight[1].expand(2, -1))
    features = image_tokenizer().embed(ids[:, 4:20] - TEXT_SIZE)
    halves = []
    for mlp, part in ((model.adapter.semantic, features.semantic), (model.adapter.pixel, features.pixel)):
        hidden = F.gelu(part @ mlp.hidden.weight.T + mlp.hidden.bias)
        halves.append(hidden @ mlp.out.weight.T + mlp.out.bias)
    assert [half.shape[-1] for half in halves] == [16, 16]
    close(embeds[:, 4:20], torch.cat(halves, dim=-1))


def test_without_codebooks_visual_logits_change_and_text_logits_do_not():
    model = mllm()
    ids, text = mixed_ids(model), torch.randint(TEXT_SIZE, (2, 9))
    before, before_text = logits(model, ids), logits(model, text)
    with torch.no_grad():
        model.image_tokenizer.semantic.quantizer.codebook_KD.zero_()
        model.image_tokenizer.pixel_quantizer.codebook_KmD.zero_()
    after = logits(model, ids)
    assert torch.equal(logits(model, text), before_text)
    close(after[:, :4], before[:, :4], atol=1e-6, rtol=0)
    assert ((after[:, 4:] - before[:, 4:]).abs().amax(dim=-1) > 1e-3).all()


def test_adapters_see_what_they_should():
    def reacts(kind: str) -> tuple[bool, bool]:
        model = mllm(adapter=kind)
        before, found = model.embed_visual(torch.arange(64)), []
        for codebook in (model.image_tokenizer.semantic.quantizer.codebook_KD, None):
            codebook = model.image_tokenizer.pixel_quantizer.codebook_KmD if codebook is None else codebook
            kept = codebook.detach().clone()
            codebook.data.copy_(torch.randn_like(codebook))
            found.append(not torch.equal(model.embed_visual(torch.arange(64)), before))
            codebook.data.copy_(kept)
        return found[0], found[1]

    with torch.no_grad():
        assert reacts("dual") == reacts("single") == (True, True)
        assert reacts("semantic") == (True, False)
        assert reacts("pixel") == (False, True)
        assert not torch.equal(
            mllm().embed_visual(torch.arange(4)), mllm(adapter="single").embed_visual(torch.arange(4))
        )


@pytest.mark.parametrize("adapter", ["dual", "semantic"])
def test_visual_embeddings_begin_at_the_scale_of_the_text(adapter: str):
    model = SemHiTokForConditionalGeneration.from_language_model(language_model(), tiny_model(), adapter=adapter)
    with torch.no_grad():
        visual = model.embed_visual(torch.arange(64))
    wanted = model.get_input_embeddings().weight.square().mean().sqrt()
    for part in visual.chunk(2, dim=-1):
        close(part.square().mean().sqrt(), wanted, rtol=0.3, atol=0)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@torch.no_grad()
def test_cached_equals_uncached(name: str):
    model = mllm(name)
    ids = mixed_ids(model)
    wanted = logits(model, ids)
    for cut in (2, 9, 22):
        first = model(input_ids=ids[:, :cut], use_cache=True)
        parts, cache = [first.logits], first.past_key_values
        for position in range(cut, ids.shape[1]):
            step = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            parts.append(step.logits)
        close(torch.cat(parts, dim=1), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_batched_with_padding_equals_single(model: SemHiTokForConditionalGeneration):
    image, text = mixed_ids(model, 1), torch.randint(4, TEXT_SIZE, (1, 6))
    batch = torch.cat([image, F.pad(text, (image.shape[1] - 6, 0))])
    mask = torch.ones_like(batch)
    mask[1, :-6] = 0
    together = logits(model, batch, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0))
    close(together[:1], logits(model, image), atol=1e-5, rtol=1e-5)
    close(together[1:, -6:], logits(model, text), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_packed_equals_apart(model: SemHiTokForConditionalGeneration):
    samples = [mixed_ids(model, 1, seed=1), torch.randint(4, TEXT_SIZE, (1, 7)), mixed_ids(model, 1, seed=2)]
    packed = torch.cat(samples, dim=1)
    labels = torch.cat([F.pad(each[:, 1:], (1, 0), value=-100) for each in samples], dim=1)
    places = torch.cat([torch.arange(each.shape[1]) for each in samples])[None]
    together = model(input_ids=packed, labels=labels, position_ids=places)
    apart = [model(input_ids=each, labels=each, num_items_in_batch=1) for each in samples]
    close(together.logits, torch.cat([each.logits for each in apart], dim=1), atol=1e-5, rtol=1e-5)
    close(together.loss, sum(each.loss for each in apart) / sum(each.shape[1] - 1 for each in samples))


def test_the_loss_is_that_of_the_next_token(model: SemHiTokForConditionalGeneration):
    ids = mixed_ids(model)
    labels = ids.clone()
    labels[:, :4] = -100
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    chosen = [output.logits[b, i].log_softmax(-1)[ids[b, i + 1]] for b in range(2) for i in range(3, ids.shape[1] - 1)]
    close(output.loss, -torch.stack(chosen).mean())


def test_images_are_filled_in_by_forward_and_learned_from(model: SemHiTokForConditionalGeneration):
    vocabulary, images = model.vocabulary, pixels(3)
    empty = [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]
    ids = torch.tensor([[5, 6, *empty, 7, *empty], [*empty, 4, 5, 6, *[8] * 18]])
    full, encoded = ids.clone(), image_tokenizer().encode(images).ids + TEXT_SIZE
    full[0, 3:19], full[0, 22:38], full[1, 1:17] = encoded[0], encoded[1], encoded[2]
    with torch.no_grad():
        filled = model(input_ids=ids, pixel_values=images, labels=ids)
        wanted = model(input_ids=full, labels=full)
    assert torch.equal(filled.logits, wanted.logits)
    assert torch.equal(filled.loss, wanted.loss)


def test_every_part_but_the_tokenizer_learns():
    model = mllm().train()
    assert not model.image_tokenizer.training
    assert model.language_model.training
    ids, before = mixed_ids(model), copy_of(model.image_tokenizer)
    model(input_ids=ids, labels=ids).loss.backward()
    frozen = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert frozen == {f"image_tokenizer.{name}" for name, _ in model.image_tokenizer.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not changed(before, model.image_tokenizer)
    text = torch.randint(TEXT_SIZE, (1, 5))
    model.zero_grad()
    model(input_ids=text, labels=text).loss.backward()
    assert all(parameter.grad is not None for parameter in model.adapter.parameters()), (
        "each rank takes part in each step"
    )


def test_gradient_checkpointing_gives_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        model = mllm().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids = mixed_ids(model)
        model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    close(found[0], found[1])


def test_save_and_load_change_nothing(model: SemHiTokForConditionalGeneration, saved: Path):
    for loaded in (
        SemHiTokForConditionalGeneration.from_pretrained(saved),
        AutoModelForImageTextToText.from_pretrained(saved),
        AutoModelForMultimodalLM.from_pretrained(saved),
    ):
        assert not changed(copy_of(model), loaded)
        assert torch.equal(logits(loaded, mixed_ids(model)), logits(model, mixed_ids(model)))
        assert loaded.vocabulary == model.vocabulary
        assert not any(parameter.requires_grad for parameter in loaded.image_tokenizer.parameters())


@pytest.mark.parametrize("name", ["qwen2, untied", "llama"])
def test_save_and_load_other_language_models(name: str, tmp_path: Path):
    model = mllm(name, text=text_tokenizer("<|vision_start|>", "<|vision_end|>"))
    model.save_pretrained(tmp_path)
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, mixed_ids(model)), logits(model, mixed_ids(model)))


def test_codebooks_stay_in_fp32(model: SemHiTokForConditionalGeneration, saved: Path):
    loaded = SemHiTokForConditionalGeneration.from_pretrained(saved, dtype=torch.bfloat16)
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    for module in (loaded, mllm().to(torch.bfloat16)):
        for codes in (
            module.image_tokenizer.semantic.quantizer.codebook_KD,
            module.image_tokenizer.pixel_quantizer.codebook_KmD,
        ):
            assert codes.dtype == torch.float32
    codes = model.image_tokenizer.pixel_quantizer.codebook_KmD
    assert torch.equal(loaded.image_tokenizer.pixel_quantizer.codebook_KmD, codes)
    close(logits(loaded, mixed_ids(model)).float(), logits(model, mixed_ids(model)), atol=0.3, rtol=0.1)


def test_without_the_encoder_side(model: SemHiTokForConditionalGeneration, saved: Path):
    loaded = SemHiTokForConditionalGeneration.from_pretrained(saved, encoder=False)
    assert loaded.image_tokenizer.teacher is None
    assert torch.equal(logits(loaded, mixed_ids(model)), logits(model, mixed_ids(model)))
    ids = torch.tensor([[loaded.vocabulary.image_begin_id] + [loaded.vocabulary.placeholder_id] * 16])
    with pytest.raises(ValueError, match="without its encoder side"):
        loaded.fill_images(ids, pixels(1))


def test_from_folders(tmp_path: Path):
    marks = text_tokenizer("<|vision_start|>", "<|vision_end|>")
    language_model().save_pretrained(tmp_path)
    marks.save_pretrained(tmp_path)
    model = SemHiTokForConditionalGeneration.from_language_model(tmp_path, tiny_model())
    assert model.vocabulary.image_begin_id == len(WORDS) + 4
    assert model.generation_config.eos_token_id == 1


def drawn(folder: Path) -> list[int]:
    torch.set_num_threads(1)
    model = SemHiTokForConditionalGeneration.from_pretrained(folder)
    return model.generate(torch.tensor([[4, 5, 6]]), generation_mode="image")[0].tolist()


def test_greedy_image_ids_are_the_same_in_another_process(model: SemHiTokForConditionalGeneration, saved: Path):
    wanted = model.generate(torch.tensor([[4, 5, 6]]), generation_mode="image")[0].tolist()
    assert len(set(wanted)) > 3
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        assert pool.submit(drawn, saved).result(timeout=120) == wanted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mllm(text=text_tokenizer(*[f"<{index}>" for index in range(60)])), "the language model only 64"),
        (lambda: mllm(adapter="dule"), "adapter must be one of semantic, pixel, single, dual, got 'dule'"),
        (lambda: mllm(tokenizer=tiny_model(pixel_codebook="random")), "pixel_codebook random"),
        (lambda: mllm().resize_token_embeddings(70), "cannot be resized"),
        (
            lambda: mllm()(input_ids=torch.zeros(1, 2, dtype=torch.long), inputs_embeds=torch.zeros(1, 2, 32)),
            "exactly one",
        ),
        (lambda: SemHiTokMLLMConfig(code_head_width=10, code_head_heads=3), "multiple of code_head_heads 3"),
        (lambda: SemHiTokMLLMConfig(image_guidance=0.0), "image_guidance must be above 0"),
        (lambda: SemHiTokMLLMConfig(image_top_k=-1), "image_top_k at least 0"),
        (lambda: SemHiTokMLLMConfig(code_head_layers=0), "at least 1, got 0"),
    ],
)
def test_bad_input(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_language_model_that_does_more_is_refused():
    granite = AutoModelForCausalLM.from_config(GraniteConfig(**SIZES, logits_scaling=3.0))
    with pytest.raises(ValueError, match="GraniteForCausalLM does not compute its logits as"):
        SemHiTokForConditionalGeneration.from_language_model(granite, tiny_model())
    with pytest.raises(ValueError, match="with a head is needed, got Qwen2Model"):
        SemHiTokForConditionalGeneration.from_language_model(language_model().model, tiny_model())


def test_images_and_places_must_agree(model: SemHiTokForConditionalGeneration):
    vocabulary = model.vocabulary
    ids = torch.tensor([[vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]])
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"the text has places for 1 images, got {count}"):
            model(input_ids=ids, pixel_values=pixels(count) if count else None)
    with pytest.raises(
        ValueError, match="12 placeholder ids at 1 places, but an image has 16 tokens: the processor belongs"
    ):
        model(input_ids=ids[:, :13], pixel_values=pixels(1))
    with pytest.raises(ValueError, match="must have 16 tokens, these have 64"):
        model(input_ids=ids, pixel_values=pixels(1, size=64))


def test_ids_are_placed_as_images_are(model: SemHiTokForConditionalGeneration):
    vocabulary, images = model.vocabulary, pixels(3)
    empty = [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * 16, vocabulary.image_end_id]
    ids = torch.tensor([[5, 6, *empty, 7, *empty], [*empty, 4, 5, 6, *[8] * 18]])
    encoded = image_tokenizer().encode(images).ids
    placed, codes = vocabulary.place_image_ids(ids, encoded)
    assert codes is None
    assert torch.equal(placed, model.fill_images(ids, images)[0])
    assert torch.equal(placed[1, 1:17], vocabulary.visual_ids(encoded[2]))
    assert torch.equal(vocabulary.place_image_ids(ids[:, :1], encoded[:0])[0], ids[:, :1])
    with pytest.raises(ValueError, match="48 placeholder ids cannot hold 32 tokens of images"):
        vocabulary.place_image_ids(ids, encoded[:2])
    with pytest.raises(ValueError, match=r"must lie in \[0, 64\), got 64"):
        vocabulary.place_image_ids(ids, torch.full_like(encoded, 64))
