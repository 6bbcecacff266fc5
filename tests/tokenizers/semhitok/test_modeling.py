"""The model: one path for encode, decode and forward; ids and codes against brute force; sizes of all kinds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.tiny import pixels, tiny_config, tiny_model, tower_config
from torch import Tensor

from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import ImageTokenizer, SemHiTokModel

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "length": {"concat": "length"},
    "none": {"concat": "none", "refine_channels": 0},
    "one pixel code": {"subcodebook_size": 1},
    "vanilla": {"semantic_quantizer": "vanilla"},
    "normalized": {"semantic_quantizer": "normalized"},
    "free sizes": {"semantic_codebook_size": 11, "subcodebook_size": 5, "semantic_dim": 9, "pixel_dim": 3},
}


@pytest.fixture(scope="module")
def model() -> SemHiTokModel:
    return tiny_model()


def seen_through(model: SemHiTokModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).reconstruction


@pytest.mark.parametrize("name", VARIANTS)
def test_decode_of_encode_is_forward_bit_for_bit(name: str):
    model = tiny_model(**VARIANTS[name])
    images, size = pixels(6), model.config.subcodebook_size
    encoded = model.encode(images)
    assert encoded.ids.dtype == torch.int64
    assert encoded.ids.shape == encoded.semantic_ids.shape == (6, 16)
    assert torch.equal(encoded.ids // size, encoded.semantic_ids)
    assert len(encoded.ids.unique()) > 8, "a test on one code shows nothing"
    assert encoded.grid == (4, 4)
    with torch.no_grad():
        output = model(images)
    assert torch.equal(output.ids, encoded.ids)
    assert torch.equal(model.decode(encoded.ids), output.reconstruction.clamp(-1, 1))


def test_is_a_tokenizer_of_the_protocol(model: SemHiTokModel):
    assert isinstance(model, ImageTokenizer)
    assert (model.vocab_size, model.num_tokens, model.codes_per_token) == (64, 16, 1)


def test_ids_do_not_depend_on_the_order_of_the_batch(model: SemHiTokModel):
    images = pixels(32, seed=3)
    ids = model.encode(images).ids
    for seed in range(3):
        order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(model.encode(images[order]).ids, ids[order])


@pytest.mark.parametrize("kind", ["ema", "vanilla", "normalized"])
def test_ids_are_the_nearest_codes_by_brute_force(kind: str):
    model = tiny_model(semantic_quantizer=kind)
    images, m = pixels(4, seed=9), 4
    encoded = model.encode(images)
    with torch.no_grad():
        features = model.teacher_features(images)
        projection = model.semantic.projection
        vectors = F.linear(features, projection.hidden.weight, projection.hidden.bias).tanh()
        vectors = F.linear(vectors, projection.out.weight, projection.out.bias).double()
        pixel_vectors = F.normalize(model.pixel_features(images).double(), dim=-1)
    semantic_codes = model.semantic.quantizer.codebook_KD.detach().double()
    pixel_codes = F.normalize(model.pixel_quantizer.codebook_KmD.detach().double(), dim=-1)
    if kind == "normalized":
        vectors, semantic_codes = F.normalize(vectors, dim=-1), F.normalize(semantic_codes, dim=-1)
    for image, token in itertools.product(range(4), range(16)):
        distances = [float((vectors[image, token] - code).square().sum()) for code in semantic_codes]
        k = int(np.argmin(distances))
        cosines = [float(pixel_vectors[image, token] @ pixel_codes[k, j]) for j in range(m)]
        assert encoded.ids[image, token] == k * m + int(np.argmax(cosines))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_of_the_embedding_table_is_the_embedding_of_its_id(name: str):
    model = tiny_model(**VARIANTS[name])
    config = model.config
    table = model.embedding_table()
    assert table.shape == (config.vocab_size, config.semantic_dim + config.pixel_dim)
    assert table.dtype == torch.float32
    codebook = model.semantic.quantizer.codebook_KD.detach()
    if config.semantic_quantizer == "normalized":
        codebook = codebook / codebook.norm(dim=-1, keepdim=True)
    for k, j in itertools.product(range(config.semantic_codebook_size), range(config.subcodebook_size)):
        pixel = model.pixel_quantizer.codebook_KmD[k, j].detach()
        torch.testing.assert_close(
            table[k * config.subcodebook_size + j], torch.cat([codebook[k], pixel / pixel.norm()])
        )
    ids = torch.randint(0, config.vocab_size, (3, 16))
    embedded = model.embed(ids)
    assert torch.equal(torch.cat([embedded.semantic, embedded.pixel], dim=-1), table[ids])
    with torch.no_grad():
        decoded = model.decode_features(*table[ids].split([config.semantic_dim, config.pixel_dim], dim=-1), (4, 4))
    assert torch.equal(model.decode(ids), decoded.clamp(-1, 1))


def test_the_decoder_sees_the_semantic_code_unless_told_otherwise():
    for concat, sees in (("dim", True), ("length", True), ("none", False)):
        model = tiny_model(concat=concat)
        embedded = model.embed(torch.arange(16)[None])
        with torch.no_grad():
            images = [
                model.decode_features(semantic, embedded.pixel, (4, 4))
                for semantic in (embedded.semantic, embedded.semantic + 1)
            ]
        assert (not torch.equal(*images)) == sees


def test_length_joins_semantic_and_pixel_tokens_of_a_patch_at_one_position():
    model = tiny_model(concat="length")
    seen = []
    handle = model.pixel_decoder.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    assert model.decode(torch.zeros(2, 16, dtype=torch.long)).shape == (2, 3, 32, 32)
    handle.remove()
    ((tokens, rotary),) = seen
    assert tokens.shape == (2, 32, 16)
    for angles in rotary:
        assert torch.equal(angles[:16], angles[16:])


def test_length_reads_the_image_off_the_pixel_half():
    model = tiny_model(concat="length")
    for layer in model.pixel_decoder.transformer.residual_outputs():  # now no token sees another
        torch.nn.init.zeros_(layer.weight)
    semantic, pixel = torch.randn(1, 16, 6), torch.randn(1, 16, 4)
    with torch.no_grad():
        image = model.decode_features(semantic, pixel, (4, 4))
        assert torch.equal(model.decode_features(semantic + 1, pixel, (4, 4)), image)
        assert not torch.equal(model.decode_features(semantic, pixel + 1, (4, 4)), image)


@pytest.mark.parametrize("size", [(32, 64), (48, 16), (8, 8), (64, 64)])
def test_images_that_are_not_square_and_of_other_sizes(model: SemHiTokModel, size: tuple[int, int]):
    images = F.interpolate(pixels(2, seed=4), size, mode="bicubic", antialias=True).clamp(-1, 1)
    encoded = model.encode(images)
    grid = (size[0] // 8, size[1] // 8)
    assert encoded.grid == grid
    assert encoded.ids.shape == (2, grid[0] * grid[1])
    decoded = model.decode(encoded.ids, encoded.grid)
    assert decoded.shape == images.shape
    assert torch.equal(decoded, seen_through(model, images).clamp(-1, 1))


def test_a_sideways_image_is_not_read_as_an_upright_one(model: SemHiTokModel):
    encoded = model.encode(F.interpolate(pixels(1), (16, 64)))
    assert model.decode(encoded.ids, (2, 8)).shape == (1, 3, 16, 64)
    assert model.decode(encoded.ids).shape == (1, 3, 32, 32)
    assert not torch.equal(model.decode(encoded.ids, (8, 2)), model.decode(encoded.ids, (2, 8)).mT)


def test_384_at_patch_14_in_small():
    """52 px at patch 14: 3x3 tokens, of which the pixel branch sees the whole image at 42 px; the paper's 384 is alike."""
    teacher = TeacherConfig(tower_config(image_size=52, patch_size=14), image_size=52)
    model = tiny_model(teacher_config=teacher, image_size=52, patch_size=14)
    images = pixels(2, size=52)
    encoded = model.encode(images)
    assert (encoded.grid, encoded.ids.shape, model.num_tokens) == ((3, 3), (2, 9), 9)
    view = model.pixel_view(images)
    assert view.shape == (2, 3, 42, 42)
    picture = Image.fromarray(images[0, 0].numpy()).resize((42, 42), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(view[0, 0].numpy(), np.asarray(picture), atol=2e-5)
    assert torch.equal(model.decode(encoded.ids), seen_through(model, images).clamp(-1, 1))
    assert model.decode(encoded.ids).shape == (2, 3, 42, 42)
    border = images.clone()
    border[:, :, 42:] = 0
    assert torch.equal(model.encode(border).semantic_ids, encoded.semantic_ids), "the teacher drops the last 10 px"
    assert not torch.equal(model.pixel_features(border), model.pixel_features(images)), "the pixel branch does not"
    assert tiny_config(image_size=384, patch_size=14).grid(384, 384) == (27, 27)


def test_a_teacher_fed_at_another_size():
    """Patches of 16 px at 64 px beside patches of 8 px at 32 px, as the built-in teacher of ``nano``."""
    teacher = TeacherConfig(tower_config(image_size=64, patch_size=16), image_size=64)
    model = tiny_model(teacher_config=teacher)
    images = pixels(2, seed=6)
    with torch.no_grad():
        large = F.interpolate(images, (64, 64), mode="bicubic", antialias=True)
        assert torch.equal(model.teacher_features(images), model.teacher(large))
    assert model.encode(F.interpolate(images, (16, 48))).grid == (2, 6)


def test_a_teacher_grid_that_does_not_fit_an_image_is_named():
    teacher = TeacherConfig(tower_config(image_size=52, patch_size=14), image_size=52)
    model = tiny_model(teacher_config=teacher, image_size=30, patch_size=8)  # both see 3x3 at their own size
    assert model.encode(pixels(1, size=30)).grid == (3, 3)
    with pytest.raises(ValueError, match="teacher's grid 7x7 does not match the token grid 8x8 of a 64x64 image"):
        model.encode(pixels(1, size=64))


def test_cached_semantic_ids_replace_the_teacher(model: SemHiTokModel):
    images = pixels(4, seed=2)
    encoded = model.encode(images)
    with torch.no_grad():
        output, cached = model(images), model(images, encoded.semantic_ids)
        other = model(images, (encoded.semantic_ids + 1) % 16)
    assert torch.equal(output.reconstruction, cached.reconstruction)
    assert torch.equal(other.ids // 4, (encoded.semantic_ids + 1) % 16)
    with pytest.raises(ValueError, match=r"semantic ids must have shape \(4, 16\), got \(4, 9\)"):
        model(images, encoded.semantic_ids[:, :9])


def test_gradients_reach_the_pixel_branch_and_nothing_of_stage_1():
    model = tiny_model()
    output = model(pixels(2))
    (output.reconstruction.square().mean() + sum(output.losses.values())).backward()
    moved = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {"pixel_encoder", "pixel_quantizer", "pixel_decoder"}
    assert set(output.losses) == {"codebook", "commitment"}
    torch.testing.assert_close(output.pixel_features, model.pixel_features(pixels(2)))


def test_decode_semantic_gives_the_teachers_shape_from_the_semantic_part_alone(model: SemHiTokModel):
    ids = torch.arange(0, 64, 4)[None]
    features = model.decode_semantic(ids)
    assert features.shape == (1, 16, 16)
    assert torch.equal(model.decode_semantic(ids + 3), features), "the pixel code must not matter"
    with torch.no_grad():
        codes = model.semantic.quantizer.lookup(ids // 4)
        assert torch.equal(features, model.semantic.decoder(codes, (4, 4)))
        assert model.decode_semantic(ids, (2, 8)).shape == (1, 16, 16)


BAD_IDS: list[tuple[Tensor, tuple[int, int] | None, str]] = [
    (torch.tensor([[0, 1, 2, 64]]), None, r"ids must lie in \[0, 64\), got 64"),
    (torch.tensor([[0, -3, 2, 63]]), None, r"ids must lie in \[0, 64\), got -3"),
    (torch.zeros(1, 4), None, r"ids must be whole numbers of shape \(batch, tokens\), got torch.float32 \(1, 4\)"),
    (torch.zeros(4, dtype=torch.long), None, r"shape \(batch, tokens\), got torch.int64 \(4,\)"),
    (torch.zeros(1, 4, 1, dtype=torch.long), None, r"got torch.int64 \(1, 4, 1\)"),
    (torch.zeros(1, 5, dtype=torch.long), None, "5 tokens per image, but the grid needs a square number"),
    (torch.zeros(1, 16, dtype=torch.long), (3, 5), "16 tokens per image, but the grid needs 3x5 = 15; pass grid="),
    (torch.zeros(1, 0, dtype=torch.long), None, "0 tokens per image"),
    (torch.zeros(1, 4, dtype=torch.long), (-2, -2), "4 tokens per image"),
]


@pytest.mark.parametrize(("ids", "grid", "message"), BAD_IDS)
def test_ids_that_cannot_be_decoded(model: SemHiTokModel, ids: Tensor, grid: tuple[int, int] | None, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        model.decode(ids, grid)
    assert "\n" not in str(caught.value)


def test_ids_of_any_whole_number_type(model: SemHiTokModel):
    ids = torch.arange(16)[None]
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(model.decode(ids.to(dtype)), model.decode(ids))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"shape \(batch, 3, height, width\), got \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), r"got \(1, 1, 32, 32\)"),
        (torch.zeros(1, 32, 32, 3), r"got \(1, 32, 32, 3\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"floating-point numbers in \[-1, 1\], got torch.uint8"),
        (torch.zeros(1, 3, 32, 7), "images must be at least 8 pixels on each side .*, got 32x7"),
    ],
)
def test_images_that_cannot_be_encoded(model: SemHiTokModel, images: Tensor, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        model.encode(images)
    assert "\n" not in str(caught.value)
