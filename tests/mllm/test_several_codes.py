"""Tokenizers of several codes per token: the code head by brute force, and the same model around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.mllm.tiny_mllm import TEXT_SIZE, codes_mllm, codes_tokenizer, language_model, mllm, processor
from tests.tiny import changed, copy_of, pixels, shake
from tests.tiny_unitok import SIZES
from torch import Tensor

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration
from semhitok.mllm.code_head import CodeHead
from semhitok.tokenizers import UniTokConfig, UniTokModel

close = torch.testing.assert_close
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model() -> SemHiTokForConditionalGeneration:
    return codes_mllm()


def sequence(model: SemHiTokForConditionalGeneration, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Three words, the image, one word: ids (B,10), codes (B,10,3)."""
    batch = len(codes)
    words = torch.tensor([[4, 5, 6]]).expand(batch, -1)
    ids = torch.cat([words, model.vocabulary.span(codes), torch.full((batch, 1), 7)], dim=1)
    visual_codes = torch.zeros(batch, ids.shape[1], 3, dtype=torch.long)
    visual_codes[:, 4:8] = codes
    return ids, visual_codes


def random_codes(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(5, (batch, 4, 3), generator=torch.Generator().manual_seed(seed))


def test_layout(model: SemHiTokForConditionalGeneration):
    assert len(model.lm_head.weight) == TEXT_SIZE + 1 + 2
    assert model.get_input_embeddings().weight.shape[0] == TEXT_SIZE
    assert model.vocabulary.image_begin_id == TEXT_SIZE + 1


def code_head() -> CodeHead:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        head = CodeHead(hidden_size=8, codes=4, vocab_size=6, layers=2, width=16, heads=2).eval()
        shake(head)
    return head


@torch.no_grad()
def test_a_code_sees_the_codes_before_it_only():
    head, hidden = code_head(), torch.randn(3, 8)
    codes = torch.randint(6, (3, 4))
    before = head(hidden, codes)
    assert before.shape == (3, 4, 6)
    for place in range(4):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % 6
        moved = (head(hidden, other) - before).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [later > place for later in range(4)]
    assert ((head(hidden + 1, codes) - before).abs().amax(dim=(0, 2)) > 1e-6).all()


@torch.no_grad()
def test_code_by_code_equals_all_at_once():
    head, hidden = code_head(), torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    codes = head.generate(hidden, lambda logits: logits.argmax(-1))
    assert torch.equal(head(hidden, codes).argmax(-1), codes)
    assert len(codes.unique()) > 2


def test_text_logits_are_those_of_the_language_model(model: SemHiTokForConditionalGeneration):
    ids = torch.randint(TEXT_SIZE, (2, 9))
    with torch.no_grad():
        close(model(input_ids=ids).logits[..., :TEXT_SIZE], language_model()(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_all_codes_of_an_input_count(model: SemHiTokForConditionalGeneration):
    ids, visual_codes = sequence(model, random_codes())
    with torch.no_grad():
        before = model(input_ids=ids, visual_codes=visual_codes).logits
        for place in range(3):
            other = visual_codes.clone()
            other[:, 5, place] = (other[:, 5, place] + 1) % 5
            moved = (model(input_ids=ids, visual_codes=other).logits - before).abs().amax(dim=(0, 2)) > 1e-6
            assert moved.tolist() == [position >= 5 for position in range(10)]


def test_the_loss_counts_a_token_like_a_word(model: SemHiTokForConditionalGeneration):
    ids, visual_codes = sequence(model, random_codes())
    with torch.no_grad():
        output = model(input_ids=ids, visual_codes=visual_codes, labels=ids, output_hidden_states=True)
        losses = []
        for row in range(2):
            for position in range(9):
                if 4 <= position + 1 < 8:
                    hidden = output.hidden_states[-1][row, position][None]
                    codes = visual_codes[row, position + 1][None]
                    chosen = model.code_head(hidden, codes)[0].log_softmax(-1).gather(1, codes.T)
                    losses.append(-chosen.mean())
                else:
                    losses.append(-output.logits[row, position].log_softmax(-1)[ids[row, position + 1]])
    close(output.loss, torch.stack(losses).mean())


def test_images_are_filled_in_and_learned_from():
    model, images = codes_mllm().train(), pixels(2, size=16)
    ids, visual_codes = sequence(model, codes_tokenizer().encode(images).ids)
    empty = ids.masked_fill(model.vocabulary.is_visual(ids), model.vocabulary.placeholder_id)
    filled = model(input_ids=empty, pixel_values=images, labels=empty)
    wanted = model(input_ids=ids, visual_codes=visual_codes, labels=ids)
    assert torch.equal(filled.loss, wanted.loss)
    filled.loss.backward()
    assert all(parameter.grad is not None for parameter in model.code_head.parameters())


def test_ids_are_placed_beside_those_that_stand_there_already(model: SemHiTokForConditionalGeneration):
    codes = random_codes()
    ids, visual_codes = sequence(model, codes)
    empty = ids.masked_fill(model.vocabulary.is_visual(ids), model.vocabulary.placeholder_id)
    for found, wanted in zip(model.vocabulary.place_image_ids(empty, codes), (ids, visual_codes), strict=True):
        assert torch.equal(found, wanted)
    both = torch.cat([ids, empty], dim=1)
    others = random_codes(seed=1)
    given = torch.cat([visual_codes, torch.zeros_like(visual_codes)], dim=1)
    filled, found = model.vocabulary.place_image_ids(both, others, given)
    assert torch.equal(filled, torch.cat([ids, ids], dim=1))
    assert torch.equal(found, torch.cat([visual_codes, sequence(model, others)[1]], dim=1))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_image_generation_by_its_definition(model: SemHiTokForConditionalGeneration, guidance: float):
    """Whole sequences in every step, without cache; the codes one after the other."""
    words, begin = torch.tensor([[4, 5, 6]]), model.vocabulary.image_begin_id
    drawn = torch.zeros(1, 0, 3, dtype=torch.long)
    for _ in range(4):
        hidden = []
        for prompt in ([4, 5, 6, begin], [begin]):
            ids = torch.tensor([[*prompt, *[TEXT_SIZE] * drawn.shape[1]]])
            codes = torch.zeros(1, ids.shape[1], 3, dtype=torch.long)
            codes[:, len(prompt) :] = drawn
            with torch.no_grad():
                hidden.append(model.body(ids, codes).last_hidden_state[:, -1])
        token = torch.zeros(1, 3, dtype=torch.long)
        for place in range(3):
            with torch.no_grad():
                conditional, unconditional = (model.code_head(each, token)[:, place] for each in hidden)
            token[:, place] = (unconditional + guidance * (conditional - unconditional)).argmax(-1)
        drawn = torch.cat([drawn, token[:, None]], dim=1)
    found = model.generate_images(words, guidance=guidance, sampling=GREEDY)
    assert torch.equal(found, drawn)
    assert torch.equal(model.generate(words, generation_mode="image", guidance_scale=guidance), drawn)


def test_batches_seeds_and_rows(model: SemHiTokForConditionalGeneration):
    ids, mask = torch.tensor([[4, 5, 6], [0, 0, 8]]), torch.tensor([[1, 1, 1], [0, 0, 1]])
    both = model.generate_images(ids, mask, guidance=2.0, sampling=Sampling(seed=2))
    assert both.shape == (2, 4, 3)
    assert torch.equal(model.generate_images(ids[1:, 2:], guidance=2.0, sampling=Sampling(seed=3)), both[1:])
    rows = list(model.stream_images(ids, mask, guidance=2.0, sampling=Sampling(seed=2)))
    assert [row.shape for row in rows] == [(2, 2, 3), (2, 4, 3)]
    assert torch.equal(rows[-1], both)
    assert not model.decode_partial(rows[0])[:, :, 8:].any()
    assert torch.equal(model.decode_image_tokens(both), codes_tokenizer().decode(both))
    torch.manual_seed(0)
    drawn = [model.generate(ids, attention_mask=mask, generation_mode="image", do_sample=True) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_text_after_images(model: SemHiTokForConditionalGeneration):
    images = pixels(2, size=16)
    ids, visual_codes = sequence(model, codes_tokenizer().encode(images).ids)
    wanted = ids
    for _ in range(6):
        codes = torch.cat([visual_codes, visual_codes.new_zeros(2, wanted.shape[1] - 10, 3)], dim=1)
        with torch.no_grad():
            logits = model(input_ids=wanted, visual_codes=codes).logits[:, -1, :TEXT_SIZE]
        wanted = torch.cat([wanted, logits.argmax(-1, keepdim=True)], dim=1)
    options = {"max_new_tokens": 6, "eos_token_id": None}
    assert torch.equal(model.generate(ids, visual_codes=visual_codes, **options), wanted)
    assert torch.equal(model.generate(ids, visual_codes=visual_codes, use_cache=False, **options), wanted)
    empty = ids.masked_fill(model.vocabulary.is_visual(ids), model.vocabulary.placeholder_id)
    assert torch.equal(model.generate(empty, pixel_values=images, **options), wanted)
    drawn = model.generate_images(empty, pixel_values=images, guidance=2.0, sampling=GREEDY)
    assert torch.equal(model.generate_images(ids, visual_codes=visual_codes, guidance=2.0, sampling=GREEDY), drawn)
    others = visual_codes.flip(-1)
    assert not torch.equal(model.generate_images(ids, visual_codes=others, guidance=2.0, sampling=GREEDY), drawn)


def test_save_and_load_change_nothing(model: SemHiTokForConditionalGeneration, tmp_path: Path):
    model.save_pretrained(tmp_path)
    loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path)
    assert not changed(copy_of(model), loaded)
    words = torch.tensor([[4, 5, 6]])
    assert torch.equal(loaded.generate_images(words, sampling=GREEDY), model.generate_images(words, sampling=GREEDY))


def test_processor(model: SemHiTokForConditionalGeneration):
    inputs = processor(model)(pixels_as_image(), "a <image> cat")
    assert (inputs["input_ids"] == model.vocabulary.placeholder_id).sum() == 4
    assert inputs["pixel_values"].shape == (1, 3, 16, 16)
    text = model.generate(**inputs, max_new_tokens=3, eos_token_id=None)
    assert processor(model).post_process_multimodal_output(text)[0].startswith("a cat")


def unitok() -> UniTokModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UniTokModel(UniTokConfig(**SIZES | {"width": 16, "codebook_size": 9, "embed_dim": 16})).eval()


def test_unitok(tmp_path: Path):
    tokenizer = unitok()
    model = mllm(tokenizer=tokenizer, adapter="single", code_head_layers=1, code_head_width=16, code_head_heads=2)
    assert (model.vocabulary.codes_per_token, model.vocabulary.image_tokens) == (4, 4)
    inputs = processor(model)(pixels_as_image(32), "what is <image>")
    filled, codes = model.fill_images(inputs["input_ids"], inputs["pixel_values"])
    assert torch.equal(codes[model.vocabulary.is_visual(filled)], tokenizer.encode(inputs["pixel_values"]).ids[0])
    options = {"guidance": 2.0, "sampling": GREEDY}
    drawn = model.generate_images(**inputs, **options)
    assert drawn.shape == (1, 4, 4)
    assert model.decode_image_tokens(drawn).shape == (1, 3, 32, 32)
    model.save_pretrained(tmp_path)
    for encoder in (True, False):
        loaded = SemHiTokForConditionalGeneration.from_pretrained(tmp_path, encoder=encoder)
        found = loaded.generate_images(filled, inputs["attention_mask"], visual_codes=codes, **options)
        assert torch.equal(found, drawn)
        assert torch.equal(loaded.decode_image_tokens(drawn), model.decode_image_tokens(drawn))


def pixels_as_image(size: int = 16) -> Tensor:
    return ((pixels(1, size=size)[0] + 1) * 127).to(torch.uint8)


def test_bad_input(model: SemHiTokForConditionalGeneration):
    ids, visual_codes = sequence(model, random_codes())
    with pytest.raises(ValueError, match="visual positions carry 3 codes with this tokenizer: pass visual_codes"):
        model.body(ids)
    with pytest.raises(ValueError, match="use generation_mode text or image"):
        model.generate(ids, visual_codes=visual_codes, generation_mode="interleaved")
    with pytest.raises(ValueError, match="images are generated without repetition_penalty"):
        model.generate(ids, visual_codes=visual_codes, generation_mode="image", repetition_penalty=2.0)
    with pytest.raises(ValueError, match="adapter dual needs semantic features"):
        codes_mllm(adapter="dual")
