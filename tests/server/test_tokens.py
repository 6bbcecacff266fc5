"""Images to ids and back, as JSON and in binary."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tests.server.live import NAME, Live, data_url, png, serving, tiny_served

from semhitok.inference.reconstruction import decode_ids, encode_images
from semhitok.inference.served_model import ServedModel
from semhitok.inference.token_files import npy_of_ids

BINARY = "application/octet-stream"
IMAGES = [png(1), png(2), png(3, size=50)]


def ids_alone(live: Live, fit: str = "crop") -> torch.Tensor:
    return torch.cat([each.ids for each in encode_images(live.state.model.tokenizer, IMAGES, fit=fit)])


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def wanted_images(live: Live, ids: torch.Tensor) -> list[np.ndarray]:
    return [np.asarray(image) for image in decode_ids(live.state.model.tokenizer, ids, batch_size=1)]


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_tokenize_as_json(live: Live, fit):
    images = [data_url(IMAGES[0]), base64.b64encode(IMAGES[1]).decode(), data_url(IMAGES[2])]
    answer = live.post("/v1/tokenize", {"images": images, "fit": fit, "model": NAME}).json
    assert [each["ids"] for each in answer["data"]] == ids_alone(live, fit).tolist()
    assert (answer["grid"], answer["vocab_size"], answer["codes_per_token"]) == ([4, 4], 64, 1)


def test_tokenize_and_detokenize_in_binary(live: Live):
    answer = live.send("POST", "/v1/tokenize", IMAGES[0], content_type="image/png", accept=BINARY)
    array = np.load(io.BytesIO(answer.body), allow_pickle=False)
    assert (array.shape, answer.headers["content-type"]) == ((1, 4, 4), BINARY)
    assert array.reshape(1, 16).tolist() == ids_alone(live)[:1].tolist()
    (wanted,) = wanted_images(live, ids_alone(live)[:1])
    picture = live.send("POST", "/v1/detokenize", answer.body, content_type=BINARY, accept="image/png")
    assert np.array_equal(pixels_of(picture.body), wanted)
    arrays = live.send("POST", "/v1/detokenize", answer.body, content_type=BINARY, accept=BINARY)
    assert np.array_equal(np.load(io.BytesIO(arrays.body), allow_pickle=False), wanted[None])
    wide = live.send("POST", "/v1/tokenize?fit=resize", IMAGES[2], content_type=BINARY)
    assert wide.json["data"][0]["ids"] == ids_alone(live, "resize")[2].tolist()


def test_detokenize_as_json(live: Live):
    ids = ids_alone(live)
    answer = live.post("/v1/detokenize", {"ids": ids.tolist()}).json
    for each, wanted in zip(answer["data"], wanted_images(live, ids), strict=True):
        assert np.array_equal(pixels_of(base64.b64decode(each["b64_json"])), wanted)
    wide = live.post("/v1/detokenize", {"ids": ids[:1, :8].tolist(), "grid": [2, 4]}, accept="image/png")
    (wanted,) = decode_ids(live.state.model.tokenizer, ids[:1, :8], (2, 4))
    assert np.array_equal(pixels_of(wide.body), np.asarray(wanted))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i4", np.uint64])
def test_ids_of_any_integer_type_and_order(live: Live, dtype):
    ids = ids_alone(live)[:1]
    file = io.BytesIO()
    np.save(file, np.asfortranarray(ids.reshape(1, 4, 4).numpy().astype(dtype)))
    answer = live.send("POST", "/v1/detokenize", file.getvalue(), content_type=BINARY, accept="image/png")
    assert np.array_equal(pixels_of(answer.body), wanted_images(live, ids)[0])


def npy(**changes: object) -> bytes:
    """A file of ids whose header says something else."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (1, 4, 4)} | changes
    text = (repr(header).ljust(117) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(128)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .npy file"),
        (b"PK\x03\x04", "not a .npy file"),
        (npy()[:-1], "127 bytes do not hold"),
        (npy(shape=(1, 2**40, 4)), "do not hold an array"),
        (npy(shape=(-1, 4, 4)), "do not hold an array"),
        (npy(descr="|O"), "ids must be numbers"),
        (npy(descr="<f8"), "whole numbers"),
        (npy(shape="x"), "not a .npy file"),
        (npy(shape=(1, 4, 2, 2)), "must have the shape \\(images, tokens\\)"),
        (npy_of_ids(torch.full((1, 16), 64), (4, 4)), "must lie in \\[0, 64\\), got 64"),
        (npy_of_ids(torch.full((1, 16), -1), (4, 4)), "got -1"),
        (npy_of_ids(torch.zeros(0, 16, dtype=torch.long), (4, 4)), "must have the shape"),
        (npy_of_ids(torch.zeros(17, 16, dtype=torch.long), (4, 4)), "at most 16 images"),
    ],
)
def test_bad_binary_ids(live: Live, data, message):
    answer = live.send("POST", "/v1/detokenize", data, content_type=BINARY)
    assert answer.status == 400
    assert re.search(message, answer.error["message"]), answer.error


def test_an_image_tokenizer_alone():
    whole = tiny_served()
    with serving(ServedModel(whole.tokenizer, max_pixels=1_000_000)) as live:
        answer = live.post("/v1/tokenize", {"images": [data_url(IMAGES[0])]})
        assert answer.json["data"][0]["ids"] == ids_alone(live)[0].tolist()
        for path, value in {
            "/v1/chat/completions": {"messages": [{"role": "user", "content": "a cat"}]},
            "/v1/images/generations": {"prompt": "a cat"},
        }.items():
            refused = live.post(path, value)
            assert (refused.status, refused.error["code"]) == (400, "unsupported_model")
