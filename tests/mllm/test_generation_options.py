"""Options of transformers' ``generate`` and ``forward`` count however they are named, also with images in the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.mllm.tiny_mllm import CONTEXT, TEXT_SIZE, codes_mllm, mixed_ids, mllm
from tests.tiny import pixels
from transformers import GenerationConfig
from transformers.trainer_pt_utils import LabelSmoother

from semhitok.mllm import SemHiTokForConditionalGeneration

PROMPT = torch.tensor([[4, 5, 6]])
OWN: dict[str, dict[str, Any]] = {
    "keyword": {"max_new_tokens": 7},
    "length": {"max_length": 10},
    "config": {"generation_config": GenerationConfig(max_new_tokens=7)},
    "length in a config": {"generation_config": GenerationConfig(max_length=10)},
    "keyword before config": {"generation_config": GenerationConfig(max_new_tokens=90), "max_new_tokens": 7},
    "new tokens before length": {"generation_config": GenerationConfig(max_length=90), "max_new_tokens": 7},
}


@pytest.fixture
def model() -> SemHiTokForConditionalGeneration:
    return mllm()


def fond_of_images() -> SemHiTokForConditionalGeneration:
    """Begins an image wherever it may, and never ends."""
    model = mllm()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        model.lm_head.weight[model.vocabulary.image_begin_id] = 0
        model.lm_head.weight[:TEXT_SIZE] *= 1e-3
    return model


@pytest.mark.parametrize("name", OWN)
def test_every_way_to_name_a_limit_counts_in_interleaved_text(name: str):
    model = fond_of_images()
    torch.manual_seed(0)
    found = model.generate(PROMPT.repeat(8, 1), generation_mode="interleaved", do_sample=True, **OWN[name])
    assert found.shape == (8, 10)
    assert found.max() < TEXT_SIZE, "no image begins that does not fit"


@pytest.mark.parametrize("field", [{"max_new_tokens": 20}, {"max_length": 23}])
def test_the_models_own_limit_counts_and_is_known_to_the_table_of_legal_ids(field: dict[str, int]):
    model = fond_of_images()
    model.generation_config.update(**field)
    torch.manual_seed(0)
    found = model.generate(PROMPT.repeat(16, 1), generation_mode="interleaved", do_sample=True)
    assert found.shape == (16, 23)
    model.vocabulary.check_spans(found)
    begins, ends = (found == mark for mark in (model.vocabulary.image_begin_id, model.vocabulary.image_end_id))
    assert begins.any(), "an image of 18 ids fits"
    assert torch.equal(begins.sum(1), ends.sum(1)), "no image was cut off"
    assert model.generate(PROMPT, generation_mode="interleaved", max_new_tokens=2).shape == (1, 5)


def test_without_a_limit_interleaved_text_fills_the_context(recwarn: pytest.WarningsRecorder):
    model = fond_of_images()
    assert model.generate(PROMPT, generation_mode="interleaved").shape == (1, CONTEXT)
    config = GenerationConfig(do_sample=False)
    assert model.generate(PROMPT, generation_mode="interleaved", generation_config=config).shape == (1, CONTEXT)
    assert config.max_new_tokens is None, "the caller's configuration is not changed"


@pytest.mark.parametrize("name", OWN)
def test_an_image_has_all_its_tokens_whatever_the_limit(model: SemHiTokForConditionalGeneration, name: str):
    wanted = model.generate(PROMPT, generation_mode="image")
    assert torch.equal(model.generate(PROMPT, generation_mode="image", **OWN[name]), wanted)
    several = codes_mllm()
    wanted = several.generate(PROMPT, generation_mode="image")
    assert torch.equal(several.generate(PROMPT, generation_mode="image", **OWN[name]), wanted)


def test_guidance_and_sampling_may_be_named_in_a_configuration(model: SemHiTokForConditionalGeneration):
    config = GenerationConfig(guidance_scale=2.5, max_new_tokens=6)
    wanted = model.generate(PROMPT, guidance_scale=2.5, max_new_tokens=6)
    assert torch.equal(model.generate(PROMPT, generation_config=config), wanted)
    with pytest.raises(ValueError, match=r"guidance must be above 0 .*, got -1"):
        model.generate(PROMPT, generation_config=GenerationConfig(guidance_scale=-1.0))
    several = codes_mllm()
    options: dict[str, Any] = {"do_sample": True, "top_k": 3, "temperature": 2.0}
    torch.manual_seed(4)
    wanted = several.generate(PROMPT, generation_mode="image", **options)
    torch.manual_seed(4)
    config = GenerationConfig(**options)
    assert torch.equal(several.generate(PROMPT, generation_mode="image", generation_config=config), wanted)


@pytest.mark.parametrize("mode", ["text", "image", "interleaved"])
def test_transition_scores_are_the_log_softmax_at_the_ids(model: SemHiTokForConditionalGeneration, mode: str):
    options = {"max_new_tokens": 30, "eos_token_id": None, "return_dict_in_generate": True, "output_scores": True}
    output = model.generate(PROMPT.repeat(2, 1), generation_mode=mode, **options)
    found = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    new = output.sequences[:, -len(output.scores) :]
    wanted = [[scores[row].log_softmax(-1)[new[row, i]] for i, scores in enumerate(output.scores)] for row in range(2)]
    assert torch.equal(found, torch.tensor(wanted))
    assert found.isfinite().all()
    assert found.shape == (2, 16 if mode == "image" else 30)


def test_transition_scores_of_beams_add_up(model: SemHiTokForConditionalGeneration):
    options = {"num_beams": 3, "num_return_sequences": 2, "return_dict_in_generate": True, "output_scores": True}
    for mode in ("text", "interleaved"):
        output = model.generate(PROMPT, generation_mode=mode, max_new_tokens=9, length_penalty=0.0, **options)
        found = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        torch.testing.assert_close(found.sum(dim=1), output.sequences_scores)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "options", [{"encoder_repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"encoder_no_repeat_ngram_size": 2}]
)
def test_options_that_look_at_the_prompt_accept_images(options: dict[str, Any], several: bool):
    model = codes_mllm() if several else mllm()
    vocabulary, images = model.vocabulary, pixels(1)[:, :, :16, :16] if several else pixels(1)
    span = [vocabulary.placeholder_id] * vocabulary.image_tokens
    ids = torch.tensor([[4, vocabulary.image_begin_id, *span, vocabulary.image_end_id, 9, 7, 9]])
    for given in (options, {"generation_config": GenerationConfig(**options)}):
        given = given | {"pixel_values": images, "output_scores": True, "return_dict_in_generate": True}
        found = model.generate(ids, **given)
        assert found.sequences[:, ids.shape[1] :].max() < TEXT_SIZE
    if "encoder_repetition_penalty" in options:
        plain = model.generate(ids, **(given | {"generation_config": None}), output_logits=True)
        logits = plain.logits[0][0, :TEXT_SIZE]
        wanted = logits.clone()
        for text in (4, 9, 7):
            wanted[text] = logits[text] * 1.5 if logits[text] > 0 else logits[text] / 1.5
        torch.testing.assert_close(found.scores[0][0, :TEXT_SIZE], wanted)


@torch.no_grad()
def test_tuples_instead_of_outputs(model: SemHiTokForConditionalGeneration):
    ids = mixed_ids(model)
    wanted = model(input_ids=ids, labels=ids)
    found = model(input_ids=ids, labels=ids, return_dict=False)
    assert isinstance(found, tuple)
    assert torch.equal(found[0], wanted.loss)
    assert torch.equal(found[1], wanted.logits)
    model.config.return_dict = model.config.text_config.return_dict = False
    assert torch.equal(model(input_ids=ids)[0], wanted.logits)
    assert torch.equal(model(input_ids=ids, return_dict=True).logits, wanted.logits)


@torch.no_grad()
def test_logits_are_kept_at_the_positions_asked_for(model: SemHiTokForConditionalGeneration):
    ids = mixed_ids(model)
    logits = model(input_ids=ids).logits
    for positions in ([0, 5, 21], [3], [0]):
        kept = model(input_ids=ids, logits_to_keep=torch.tensor(positions)).logits
        torch.testing.assert_close(kept, logits[:, positions])
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=2).logits, logits[:, -2:])
    for positions in (torch.tensor([0]), 1):
        with pytest.raises(ValueError, match="a loss needs all logits"):
            model(input_ids=ids, labels=ids, logits_to_keep=positions)


@pytest.mark.parametrize("several", [False, True])
def test_filled_inputs_serve_any_loss(several: bool):
    model = codes_mllm() if several else mllm()
    vocabulary, images = model.vocabulary, pixels(1)[:, :, :16, :16] if several else pixels(1)
    span = [vocabulary.placeholder_id] * vocabulary.image_tokens
    ids = torch.tensor([[4, vocabulary.image_begin_id, *span, vocabulary.image_end_id, 9]])
    labels = ids.clone()
    labels[:, :2] = -100
    given = {"input_ids": ids, "labels": labels, "pixel_values": images, "attention_mask": torch.ones_like(ids)}
    filled = model.fill_inputs(given)
    assert sorted(filled) == sorted({*given, *(["visual_codes"] if several else [])} - {"pixel_values"})
    assert filled["labels"].max() < vocabulary.size
    assert torch.equal(filled["labels"][:, :2], labels[:, :2])
    assert torch.equal(model(**filled).loss, model(**given).loss)
    shifted = model.fill_inputs(given, shift_labels=True)
    at_its_position = {name: value for name, value in shifted.items() if name != "labels"}
    smoothed = LabelSmoother(epsilon=0.0)(model(**at_its_position), shifted["labels"])
    assert smoothed.isfinite()
    if not several:  # several codes per token have a head of their own
        torch.testing.assert_close(smoothed, model(**given).loss)
    assert LabelSmoother(epsilon=0.3)(model(**at_its_position), shifted["labels"]).isfinite()
    assert "labels" not in model.fill_inputs({"input_ids": PROMPT})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.uint64])
def test_ids_of_any_type_of_integers(model: SemHiTokForConditionalGeneration, dtype: torch.dtype):
    vocabulary, image = model.vocabulary, torch.arange(16)[None] * 3
    span = [vocabulary.placeholder_id] * 16
    ids = torch.tensor([[4, vocabulary.image_begin_id, *span, vocabulary.image_end_id, 9]])

    def results(kind: torch.dtype) -> list[torch.Tensor]:
        given, drawn = ids.to(kind), image.to(kind)
        output = model(input_ids=given, labels=given, pixel_values=pixels(1))
        return [
            output.logits,
            output.loss,
            model.generate(given, pixel_values=pixels(1), max_new_tokens=3),
            model.decode_image_tokens(drawn),
            model.decode_partial(drawn[:, :8]),
            model.image_tokenizer.decode_semantic(drawn),
            model.embed_visual(drawn[0]),
            vocabulary.span(drawn),
        ]

    for found, wanted in zip(results(dtype), results(torch.int64), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 64\), got 99"):
        model.decode_image_tokens(torch.full((1, 16), 99, dtype=dtype))
