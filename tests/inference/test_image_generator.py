"""Images by prompt and seed: whole, as ids, row by row; each as if it were alone."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.mllm.tiny_mllm import codes_mllm, mllm, processor

from semhitok import ImageGenerator
from semhitok.mllm import Sampling

PROMPTS = ["a red cat", "draw two blue house", "the dog", "a red cat"]
SEEDS = [4, 5, 9, 4]


def pixels_of(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


@pytest.fixture(scope="module", params=["one code", "several codes"])
def generator(request: pytest.FixtureRequest) -> ImageGenerator:
    model = mllm() if request.param == "one code" else codes_mllm()
    return ImageGenerator(model, processor(model), 2.0)


def test_an_image_depends_on_its_prompt_and_seed_alone(generator):
    together = pixels_of(generator(PROMPTS, SEEDS))
    alone = [pixels_of(generator([prompt], [seed]))[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert together == alone
    assert together[0] == together[3]
    assert len(set(together)) == 3


def test_ids_are_those_of_the_model(generator):
    model = generator.model
    ids = generator.ids(PROMPTS, SEEDS)
    inputs = generator.processor(text=PROMPTS[2], generation_mode="image")
    assert torch.equal(ids[2:3], model.generate_images(**inputs, guidance=2.0, sampling=Sampling(seed=9)))
    decoded = generator.processor.image_processor.postprocess(model.decode_image_tokens(ids[2:3]))
    assert pixels_of(generator(PROMPTS, SEEDS))[2] == decoded[0].tobytes()


def test_the_stream_ends_with_the_images(generator):
    wanted = pixels_of(generator(PROMPTS, SEEDS))
    shown = list(generator.stream(PROMPTS, SEEDS))
    rows = generator.model.config.tokenizer_config.grid(*[generator.model.config.tokenizer_config.image_size] * 2)[0]
    assert [len(images) for images in shown] == [2] * rows + [3] * rows + [4] * rows
    assert pixels_of(shown[-1]) == wanted
    assert pixels_of(shown[rows - 1]) == wanted[:2]
    assert pixels_of(shown[rows]) != wanted[:3]
    lower = shown[0][0].crop((0, shown[0][0].height // rows, *shown[0][0].size))
    assert set(lower.get_flattened_data() if hasattr(lower, "get_flattened_data") else lower.getdata()) == {(128,) * 3}


def test_bad_input(generator):
    with pytest.raises(ValueError, match="got 4 prompts and 2 seeds"):
        generator(PROMPTS, SEEDS[:2])
    with pytest.raises(ValueError, match="guidance must be above 0"):
        ImageGenerator(generator.model, generator.processor, 0.0)
    with pytest.raises(ValueError, match="second: the prompt is empty"):
        generator.check([("first", "a cat"), ("second", " ")])
