"""UniTok's model: one path for encode, decode and forward; ids against brute force; text and image in one space."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import pixels
from tests.tokenizers.unitok.tiny import tiny
from torch import Tensor

from semhitok.tokenizers import ImageTokenizer, UniTokModel

VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "residual": {"quantizer": "residual"},
    "linear": {"projection": "linear"},
    "fewer heads": {"projection_heads": 2},
    "one codebook": {"num_codebooks": 1},
    "other sizes": {"stem_width": 9, "stage_widths": (12, 20, 96), "heads": 3, "width": 24, "num_codebooks": 3},
}


@pytest.fixture(scope="module")
def model() -> UniTokModel:
    return tiny()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pixels(3, seed=1, size=64)


@pytest.mark.parametrize("name", VARIANTS)
def test_decode_of_encode_is_forward_bit_for_bit(name: str, images: Tensor):
    model = tiny(**VARIANTS[name], text_config=None)
    spread(model, images)
    encoded = model.encode(images)
    assert encoded.ids.shape == (3, 16, model.codes_per_token)
    assert encoded.ids.dtype == torch.int64
    assert encoded.grid == (4, 4)
    assert len(encoded.ids.unique()) > 5, "a test on one code shows nothing"
    with torch.no_grad():
        output = model(images)
    assert torch.equal(output.ids, encoded.ids)
    assert torch.equal(model.decode(encoded.ids), output.reconstruction.clamp(-1, 1))
    assert len(model.decode(encoded.ids).unique()) > 1000
    assert output.features.shape == (3, 16, model.config.width)
    torch.testing.assert_close(output.image_embedding.norm(dim=-1), torch.ones(3))


def spread(model: UniTokModel, images: Tensor) -> None:
    """Codes where the features are: untrained features lie too close together for random codes."""
    assert model.quantizer is not None
    with torch.no_grad():
        model.quantizer.initialise(model.features(images).flatten(0, 1), seed=0)


def test_is_a_tokenizer_of_the_protocol(model: UniTokModel):
    assert isinstance(model, ImageTokenizer)
    assert (model.vocab_size, model.num_tokens, model.codes_per_token) == (16, 16, 4)


def test_ids_are_the_largest_cosines_chunk_by_chunk(images: Tensor):
    model = tiny(text_config=None)
    spread(model, images)
    ids = model.encode(images).ids
    with torch.no_grad():
        features = model.features(images).double()
    tables = model.embedding_tables().detach().double()
    assert tables.shape == (4, 16, 8)
    torch.testing.assert_close(tables.norm(dim=-1), torch.ones(4, 16, dtype=torch.float64))
    for image, token, code in itertools.product(range(3), range(16), range(4)):
        cosines = tables[code] @ features[image, token, 8 * code : 8 * code + 8]
        assert ids[image, token, code] == int(cosines.argmax())


def test_embed_looks_up_the_tables(model: UniTokModel):
    ids = torch.randint(0, 16, (2, 9, 4))
    embedded, tables = model.embed(ids), model.embedding_tables()
    assert embedded.semantic is None
    assert embedded.pixel.dtype == torch.float32
    for code in range(4):
        assert torch.equal(embedded.pixel[..., 8 * code : 8 * code + 8], tables[code, ids[..., code]])


def test_residual_codes_have_no_table():
    model = tiny(quantizer="residual", text_config=None)
    with pytest.raises(ValueError, match="quantizer 'residual' has no table for each code"):
        model.embedding_tables()
    ids = torch.randint(0, 16, (1, 4, 4))
    expected = sum(model.quantizer.codebook_KD[ids[..., depth]] for depth in range(4))
    torch.testing.assert_close(model.embed(ids).pixel, expected)


@pytest.mark.parametrize("size", [(32, 96), (16, 16), (80, 48)])
def test_images_that_are_not_square_and_of_other_sizes(model: UniTokModel, size: tuple[int, int]):
    images = F.interpolate(pixels(2, seed=4, size=64), size, mode="bicubic", antialias=True).clamp(-1, 1)
    encoded = model.encode(images)
    assert encoded.grid == (size[0] // 16, size[1] // 16)
    assert encoded.ids.shape == (2, size[0] * size[1] // 256, 4)
    with torch.no_grad():
        expected = model(images).reconstruction
    assert expected.shape == images.shape
    assert torch.equal(model.decode(encoded.ids, encoded.grid), expected.clamp(-1, 1))


def test_image_embedding_is_of_the_quantized_tokens(images: Tensor):
    model = tiny(text_config=None)
    spread(model, images)
    with torch.no_grad():
        tokens = model.project_up(model.embed(model.encode(images).ids).pixel)
        mean = tokens.mean(dim=1)
        head = model.image_head
        assert head is not None
        normed = F.layer_norm(mean, mean.shape[-1:], head.norm.weight, head.norm.bias, 1e-6)
        expected = F.normalize(normed @ head.project.weight.T + head.project.bias, dim=-1)
        torch.testing.assert_close(model.image_embedding(images), expected)
    assert expected.shape == (3, 48)


def test_without_reconstruction_the_decoder_is_not_run(model: UniTokModel, images: Tensor):
    calls = []
    handle = model.decoder.register_forward_hook(lambda *arguments: calls.append(1))
    with torch.no_grad():
        output = model(images, reconstruct=False)
        assert calls == []
        assert output.reconstruction is None
        whole = model(images)
    handle.remove()
    assert calls == [1]
    assert torch.equal(output.image_embedding, whole.image_embedding)


def test_text_embedding_ignores_what_is_masked(model: UniTokModel):
    end = model.config.text_config.eos_token_id
    short, long = torch.tensor([[5, 9, end]]), torch.tensor([[5, 9, end, end, end]])
    with torch.no_grad():
        embedded = model.text_embedding(short)
        padded = model.text_embedding(long, (torch.arange(5) < 3)[None].long())
        other = model.text_embedding(torch.tensor([[9, 5, end]]))
    assert embedded.shape == (1, 48)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(1))
    torch.testing.assert_close(padded, embedded, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(other, embedded, atol=1e-3)


def test_a_model_without_text_tower(images: Tensor):
    model = tiny(text_config=None)
    assert model.text_model is None
    assert model.image_embedding(images).shape == (3, 48)
    with pytest.raises(ValueError, match="this model has no text tower"):
        model.text_embedding(torch.tensor([[1, 2]]))


def test_gradients_reach_every_part():
    model = tiny()
    images = pixels(2, size=64)
    output = model(images)
    texts = model.text_embedding(torch.tensor([[5, 9, 49407], [5, 7, 49407]]))
    contrast = (model.logit_scale.exp() * output.image_embedding @ texts.T).diagonal().sum()
    (output.reconstruction.square().mean() + sum(output.losses.values()) + contrast).backward()
    assert set(output.losses) == {"codebook", "commitment"}
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == set()
    assert model.decoder.last_layer is model.decoder.stem.draw.weight
    assert model.decoder.last_layer.grad.abs().sum() > 0


def test_drop_path_grows_over_the_blocks_and_acts_in_training_only(images: Tensor):
    model = tiny(drop_path=0.4, depth=5, text_config=None)
    for tower in (model.encoder, model.decoder):
        assert tower is not None
        rates = [block.drop_path.rate for block in tower.blocks]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    with torch.no_grad():
        assert torch.equal(model(images).features, model(images).features)
        model.train()
        assert not torch.equal(model(images).features, model(images).features)


def test_continuous_features_have_no_ids_but_a_forward_pass(images: Tensor):
    for changes in ({}, {"projection": "none", "width": 128}, {"projection": "linear", "width": 48}):
        model = tiny(quantizer="none", text_config=None, **changes)
        with torch.no_grad():
            output = model(images)
            drawn = model.decoder(model.project_up(output.features), (4, 4))
        assert output.ids.shape == (3, 16, 0)
        assert output.ids.dtype == torch.int64
        assert output.losses == {}
        assert output.features.shape == (3, 16, model.config.width)
        assert torch.equal(output.reconstruction, drawn)
        for call, value in ((model.encode, images), (model.decode, output.ids), (model.embed, output.ids)):
            with pytest.raises(ValueError, match=r"continuous features \(quantizer none\)") as caught:
                call(value)
            assert "\n" not in str(caught.value)


BAD_IDS: list[tuple[Tensor, tuple[int, int] | None, str]] = [
    (torch.full((1, 4, 4), 16), None, r"ids must lie in \[0, 16\), got 16"),
    (torch.full((1, 4, 4), -3), None, r"ids must lie in \[0, 16\), got -3"),
    (torch.zeros(1, 4, 4), None, r"shape \(batch, tokens, 4\), 4 codes per token, got torch.float32 \(1, 4, 4\)"),
    (torch.zeros(1, 4, dtype=torch.long), None, r"4 codes per token, got torch.int64 \(1, 4\)"),
    (torch.zeros(1, 4, 8, dtype=torch.long), None, r"4 codes per token, got torch.int64 \(1, 4, 8\)"),
    (torch.zeros(1, 5, 4, dtype=torch.long), None, "5 tokens per image, but the grid needs a square number"),
    (torch.zeros(1, 16, 4, dtype=torch.long), (3, 5), "16 tokens per image, but the grid needs 3x5 = 15; pass grid="),
    (torch.zeros(1, 0, 4, dtype=torch.long), None, "0 tokens per image"),
    (torch.zeros(1, 4, 4, dtype=torch.long), (-2, -2), "4 tokens per image"),
]


@pytest.mark.parametrize(("ids", "grid", "message"), BAD_IDS)
def test_ids_that_cannot_be_decoded(model: UniTokModel, ids: Tensor, grid: tuple[int, int] | None, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        model.decode(ids, grid)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), r"shape \(batch, 3, height, width\), got \(3, 64, 64\)"),
        (torch.zeros(1, 1, 64, 64), r"got \(1, 1, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"floating-point numbers in \[-1, 1\], got torch.uint8"),
        (torch.zeros(1, 3, 64, 40), "sides of images must be multiples of 16 pixels, got 64x40"),
        (torch.zeros(1, 3, 0, 16), "must be multiples of 16 pixels, got 0x16"),
    ],
)
def test_images_that_cannot_be_encoded(model: UniTokModel, images: Tensor, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        model.encode(images)
    assert "\n" not in str(caught.value)
