"""Generations that share passes are those that are made alone by ``generate`` and ``generate_images``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.mllm.tiny_mllm import CONTEXT, LANGUAGE_MODELS, codes_mllm, mllm, processor, text_tokenizer
from transformers import Qwen2Config

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration
from semhitok.mllm.running_batch import Generation, RunningBatch
from semhitok.mllm.slot_cache import check_full_attention

GREEDY = Sampling(temperature=0.0)
BUILDERS: dict[str, Callable[[], SemHiTokForConditionalGeneration]] = {
    "qwen2, tied": mllm,
    "qwen3": lambda: mllm("qwen3"),
    "llama": lambda: mllm("llama"),
    "own image marks": lambda: mllm(text=text_tokenizer("<|vision_start|>", "<|vision_end|>")),
    "several codes": codes_mllm,
    "image positions": lambda: mllm(image_positions=True),
}


@pytest.fixture(scope="module", params=BUILDERS)
def model(request: pytest.FixtureRequest) -> SemHiTokForConditionalGeneration:
    return BUILDERS[request.param]()


def texts(model: Any, lengths: tuple[int, ...], *, limit: int, seed: int = 0, **options: Any) -> list[Generation]:
    """Prompts of some lengths; every second one begins with an image."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary, codes, found = model.vocabulary, model.vocabulary.codes_per_token, []
    for place, length in enumerate(lengths):
        ids, image_codes = torch.randint(4, 18, (length,), generator=generator), None
        if place % 2:
            shape = (1, vocabulary.image_tokens) if codes == 1 else (1, vocabulary.image_tokens, codes)
            image = torch.randint(vocabulary.visual_size, shape, generator=generator)
            ids = torch.cat([vocabulary.span(image)[0], ids])
            if codes > 1:
                image_codes = ids.new_zeros(len(ids), codes)
                image_codes[1 : 1 + vocabulary.image_tokens] = image[0]
        found.append(Generation(ids, limit, codes=image_codes, sampling=GREEDY, **options))
    return found


def images(model: Any, prompts: list[list[int]], guidance: list[float], sampling: Sampling) -> list[Generation]:
    """An image for each prompt; seeds count up."""
    return [
        Generation(
            torch.tensor(ids),
            model.vocabulary.image_tokens,
            image=True,
            guidance=scale,
            sampling=replace(sampling, seed=sampling.seed + place),
        )
        for place, (ids, scale) in enumerate(zip(prompts, guidance, strict=True))
    ]


def text_alone(model: Any, generation: Generation) -> list[int]:
    """By transformers."""
    codes = None if generation.codes is None else generation.codes[None]
    options = {"eos_token_id": list(generation.ends) or None, "pad_token_id": 0, "do_sample": False}
    found = model.generate(generation.prompt[None], visual_codes=codes, max_new_tokens=generation.limit, **options)
    return found[0, len(generation.prompt) :].tolist()


def image_alone(model: Any, generation: Generation) -> list:
    return model.generate_images(generation.prompt[None], guidance=generation.guidance, sampling=generation.sampling)[
        0
    ].tolist()


def finish(batch: RunningBatch) -> None:
    while batch.generations:
        batch.step()


def test_generations_of_all_lengths_that_join_at_any_time_are_those_made_alone(model):
    first = texts(model, (3, 9), limit=20)
    drawn = images(model, [[5, 6], [7, 8, 9, 10, 11]], [3.0, 1.0], GREEDY)
    sampled = images(model, [[5, 6], [7, 8]], [2.0, 1.5], Sampling(temperature=0.9, top_k=30, top_p=0.95, seed=7))
    late = texts(model, (30, 1, 12), limit=7, seed=1, ends=frozenset([1]))
    model.generation_config.eos_token_id = None
    wanted = [text_alone(model, each) for each in first + late] + [image_alone(model, each) for each in drawn + sampled]
    batch = RunningBatch(model, rows=14)
    batch.add([*first, drawn[0]])
    batch.step()
    batch.step()
    batch.add([drawn[1], *late, *sampled])
    finish(batch)
    assert [each.found for each in first + late + drawn + sampled] == wanted
    assert all(each.done for each in first + late + drawn + sampled)
    assert batch.free_rows == 14


def test_rows_are_shared_and_used_again():
    model = mllm()
    passes: list[int] = []
    body = model.body
    model.body = lambda *args, **kwargs: passes.append(len(kwargs["inputs_embeds"])) or body(*args, **kwargs)
    batch = RunningBatch(model, rows=4)
    batch.add(texts(model, (4, 6), limit=6))
    assert passes == [1, 1], "prompts of 4 and 24 ids are not padded to each other"
    batch.step()
    batch.add(images(model, [[5, 6, 7]], [2.0], GREEDY))
    assert (batch.free_rows, passes[2:]) == (0, [2, 1, 1])
    del passes[:]
    finish(batch)
    assert passes == [4] * 4 + [2] * 11, "16 tokens of the image, of which the first came with the prompt"
    model.body = body
    again = texts(model, (20, 20, 20, 20), limit=3)
    wanted = [text_alone(model, each) for each in again]
    batch.add(again)
    finish(batch)
    assert [each.found for each in again] == wanted


def test_removed_generations_leave_the_others_as_they_were():
    model = mllm()
    for removed in range(4):
        running = [*texts(model, (5, 3, 8), limit=12), *images(model, [[4, 5]], [2.0], GREEDY)]
        wanted = [text_alone(model, each) for each in running[:3]] + [image_alone(model, running[3])]
        batch = RunningBatch(model, rows=5)
        batch.add(running)
        batch.step()
        batch.remove(running[removed])
        batch.remove(running[removed])
        finish(batch)
        found = [each.found for each in running]
        assert len(found.pop(removed)) == 2
        del wanted[removed]
        assert found == wanted


def test_sampled_text_depends_on_its_seed_alone():
    model = mllm()
    prompts = [each.prompt for each in texts(model, (5, 2), limit=1)]

    def run(seeds: list[int], others: int) -> list[list[int]]:
        options = Sampling(temperature=1.3, top_p=0.9)
        made = [Generation(prompts[0], 15, sampling=replace(options, seed=seed)) for seed in seeds]
        batch = RunningBatch(model, rows=8)
        batch.add([*texts(model, (7,) * others, limit=9), *made])
        finish(batch)
        return [each.found for each in made]

    alone = [run([seed], 0)[0] for seed in (1, 2, 3)]
    assert run([1, 2, 3], 4) == alone
    assert alone[0] != alone[1] != alone[2]


def test_a_text_ends_with_an_end_id_its_limit_or_a_stop():
    model = mllm()
    (free,) = texts(model, (5,), limit=12)
    batch = RunningBatch(model, rows=2)
    batch.add([free])
    finish(batch)
    end = free.found[5]
    place = free.found.index(end)
    for options in ({"ends": frozenset([end])}, {"stop": lambda found: found[-1] == end}):
        (ended,) = texts(model, (5,), limit=12, **options)
        batch.add([ended])
        finish(batch)
        assert ended.found == free.found[: place + 1]
    (one,) = texts(model, (5,), limit=1)
    batch.add([one])
    assert (one.found, one.done, batch.generations) == (free.found[:1], True, [])


def test_prompts_are_checked():
    model = mllm()
    vocabulary = model.vocabulary
    for generation, message in {
        Generation(torch.arange(4, 10).repeat(40), 1): "longer than the context",
        Generation(torch.full((CONTEXT - 10,), 5), 16, image=True): "longer than the context",
        Generation(torch.tensor([5, vocabulary.visual_begin]), 1): "outside an image",
        Generation(torch.tensor([], dtype=torch.long), 1): "at least one token",
        Generation(torch.tensor([5]), 16, image=True, guidance=0.0): "guidance must be above 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            generation.check(vocabulary, CONTEXT)
    with pytest.raises(ValueError, match="at least 2 rows"):
        RunningBatch(model, rows=1)


def test_the_cache_grows_to_the_end_of_the_context():
    model = mllm()
    long = texts(model, (CONTEXT - 70, 3), limit=70)
    wanted = [text_alone(model, each) for each in long]
    batch = RunningBatch(model, rows=2)
    batch.add(long)
    finish(batch)
    assert [each.found for each in long] == wanted


def test_layers_that_do_not_see_everything_are_refused():
    check_full_attention(LANGUAGE_MODELS["llama"])
    window = Qwen2Config(
        num_hidden_layers=2, use_sliding_window=True, sliding_window=8, max_window_layers=1, max_position_embeddings=64
    )
    with pytest.raises(ValueError, match="full attention, but the language model qwen2 has sliding_attention"):
        check_full_attention(window)


def test_prompts_of_a_model_with_a_processor(tmp_path):
    model = mllm()
    inputs = processor(model)(text=["a red cat", "draw two blue house"])
    rows = [row[mask.bool()] for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    batch = RunningBatch(model, rows=2)
    made = [Generation(row, 8, sampling=GREEDY) for row in rows]
    batch.add(made)
    finish(batch)
    # Padded on the left by the processor, not padded here: the same texts.
    padded = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert [each.found for each in made] == padded[:, inputs["input_ids"].shape[1] :].tolist()
