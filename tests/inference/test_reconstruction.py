"""Images to ids and back in batches, against the tokenizer called by hand; reading ahead changes nothing but the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.tiny import save_images, tiny_model

from semhitok import decode_ids, encode_images, reconstruct_images
from semhitok.data.folder import image_files
from semhitok.data.images import ImageError, load_image
from semhitok.data.transforms import to_pil
from semhitok.tokenizers import SemHiTokModel, TokenizerImageProcessor


@pytest.fixture(scope="module")
def model() -> SemHiTokModel:
    return tiny_model()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return image_files([save_images(tmp_path_factory.mktemp("reconstruction") / "files", count=7)])


def test_ids_are_those_of_the_batch_by_hand(model, files):
    batches = list(encode_images(model, files, batch_size=3))
    assert [len(batch.ids) for batch in batches] == [3, 3, 1]
    processor = TokenizerImageProcessor(size=32)
    for start, batch in zip(range(0, 7, 3), batches, strict=True):
        wanted = model.encode(processor(files[start : start + 3])["pixel_values"])
        assert torch.equal(batch.ids, wanted.ids)
        assert torch.equal(batch.semantic_ids, wanted.semantic_ids)
        assert batch.grid == (4, 4)


def test_images_of_any_kind(model, files):
    (wanted,) = encode_images(model, files)
    loaded = [load_image(file) for file in files]
    for images in (loaded, (file.read_bytes() for file in files), map(str, files)):
        (found,) = encode_images(model, images)
        assert torch.equal(found.ids, wanted.ids)


def test_squeezing_is_another_fit(model):
    image = Image.radial_gradient("L").resize((90, 40))
    crop, squeezed = (next(encode_images(model, [image], fit=fit)).ids for fit in ("crop", "resize"))
    processor = TokenizerImageProcessor(size=32, mode="resize")
    assert torch.equal(squeezed, next(encode_images(model, [image], fit=None, processor=processor)).ids)
    assert not torch.equal(crop, squeezed)


def test_one_batch_is_read_ahead_and_no_more(model, files):
    taken = []

    def source() -> Iterator[Path]:
        for file in files:
            taken.append(file)
            yield file

    batches = encode_images(model, source(), batch_size=2)
    next(batches)
    assert len(taken) == 4
    next(batches)
    assert len(taken) == 6
    assert len(list(batches)) == 2


def test_what_comes_before_a_bad_image_is_given(model, files, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    batches = encode_images(model, [*files[:3], bad], batch_size=2)
    assert len(next(batches).ids) == 2
    with pytest.raises(ImageError, match=r"bad\.png: not an image"):
        next(batches)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(reconstruct_images(model, files, batch_size=0))


def test_decoding(model, files):
    (encoded,) = encode_images(model, files)
    wanted = [to_pil(image).tobytes() for image in model.decode(encoded.ids, encoded.grid)]
    for batch_size in (7, 32):
        assert [image.tobytes() for image in decode_ids(model, encoded.ids, batch_size=batch_size)] == wanted
    with pytest.raises(ValueError, match="16 tokens per image, but the grid needs 3x3"):
        next(decode_ids(model, encoded.ids, (3, 3)))


def test_reconstructions(model, files):
    found = list(reconstruct_images(model, files, batch_size=4))
    assert [each.source for each in found] == files
    (encoded,) = encode_images(model, files)
    assert torch.equal(torch.cat([each.ids for each in found]), encoded.ids)
    first = found[0]
    assert torch.equal(first.originals, TokenizerImageProcessor(size=32)(files[0])["pixel_values"])
    assert first.image().tobytes() == to_pil(first.copies[0]).tobytes()


def test_tiles_come_back_at_the_size_of_the_image(model):
    image = Image.radial_gradient("L").resize((70, 40)).convert("RGB")
    (small, large) = reconstruct_images(model, [image.resize((32, 32)), image], fit="tile", batch_size=5)
    assert large.source is image
    assert [small.image().size, large.image().size] == [(32, 32), (70, 40)]
    assert len(small.ids) == 1
    assert len(large.ids) == len(large.copies) == len(large.originals) == 6
