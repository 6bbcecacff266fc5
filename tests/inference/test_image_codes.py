"""The codes of one image: read, changed, mixed, and what they decode to, against the tokenizer itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import SIZE, pixels, tiny_images, tiny_model
from tests.tiny_unitok import tiny_unitok

from semhitok import SemHiTokModel, read_codes
from semhitok.data.transforms import to_pil
from semhitok.inference.image_codes import ImageCodes


@pytest.fixture(scope="module", params=[{}, {"subcodebook_sizes": [1 + k % 3 for k in range(16)]}], ids=["4", "1 to 3"])
def model(request: pytest.FixtureRequest) -> SemHiTokModel:
    return tiny_model(**request.param)


@pytest.fixture(scope="module")
def read(model: SemHiTokModel) -> list[ImageCodes]:
    return [read_codes(model, image_CHW.permute(1, 2, 0).numpy()) for image_CHW in tiny_images(2)]


def same(image: Image.Image, pixel_values: torch.Tensor) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(to_pil(pixel_values)))


def test_codes_are_those_of_the_tokenizer(model, read):
    encoded = model.encode(pixels(2))
    for number, codes in enumerate(read):
        assert torch.equal(codes.ids_N, encoded.ids[number])
        assert torch.equal(codes.semantic_ids, encoded.semantic_ids[number])
        assert codes.grid == encoded.grid
        assert same(codes.picture(), model.decode(encoded.ids[number : number + 1])[0])
        k, j = codes.at(5)
        assert model.config.id_layout.flatten(torch.tensor(k), torch.tensor(j)) == encoded.ids[number, 5]


def test_the_sub_codebook_in_place_changes_one_token_only(model, read):
    codes, position = read[0], 6
    k, j = codes.at(position)
    pictures = codes.alternatives(position)
    assert len(pictures) == codes.sub_codebook_size(position) == model.config.id_layout.sizes[k]
    for number, image in enumerate(pictures):
        changed = codes.with_token(position, k, number)
        assert changed.at(position) == (k, number)
        assert (changed.ids_N != codes.ids_N).sum() == (number != j)
        assert same(image, model.decode(changed.ids_N[None])[0])


def test_semantic_codes_alone_do_not_depend_on_pixel_codes(model, read):
    codes = read[0]
    layout = model.config.id_layout
    other = codes
    for position in range(len(codes.ids_N)):
        k, j = codes.at(position)
        other = other.with_token(position, k, (j + 1) % layout.sizes[k])
    assert np.array_equal(np.asarray(codes.semantic_picture()), np.asarray(other.semantic_picture()))
    decoded = []
    for j in range(layout.largest):
        for position, k in enumerate(codes.semantic_ids.tolist()):
            other = other.with_token(position, k, j % layout.sizes[k])
        decoded.append(model.decode(other.ids_N[None])[0])
    mean = np.asarray(to_pil(torch.stack(decoded).mean(dim=0)), dtype=int)
    assert np.abs(np.asarray(codes.semantic_picture(), dtype=int) - mean).max() <= 1


def test_mixed_codes_take_meaning_from_one_and_looks_from_the_other(model, read):
    one, two = read
    mixed = one.with_pixel_codes_of(two)
    assert torch.equal(mixed.semantic_ids, one.semantic_ids)
    sizes = model.config.id_layout.size_of[one.semantic_ids]
    assert torch.equal(mixed.pixel_ids, two.pixel_ids % sizes)
    assert torch.equal(one.with_pixel_codes_of(one).ids_N, one.ids_N)


def test_bad_input(model, read):
    codes = read[0]
    with pytest.raises(ValueError, match="positions 0 to 15, got 16"):
        codes.at(16)
    with pytest.raises(ValueError, match="semantic codes are 0 to 15, got 16"):
        codes.with_token(0, 16, 0)
    with pytest.raises(ValueError, match="pixel codes under semantic code 0 are 0 to"):
        codes.with_token(0, 0, 4)
    with pytest.raises(ValueError, match="one tokenizer has read"):
        codes.with_pixel_codes_of(read_codes(tiny_model(), np.zeros((SIZE, SIZE, 3), np.uint8)))
    with pytest.raises(ValueError, match="has no semantic codes"):
        read_codes(tiny_unitok(), np.zeros((SIZE, SIZE, 3), np.uint8))
