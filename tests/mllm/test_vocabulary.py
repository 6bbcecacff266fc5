"""The id layout against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from semhitok.mllm import Vocabulary

PLAIN = Vocabulary(text_size=10, visual_size=6, image_tokens=4)
OWN = Vocabulary(text_size=10, visual_size=6, image_tokens=4, own_begin_id=7, own_end_id=8)
CODES = Vocabulary(text_size=10, visual_size=6, image_tokens=4, codes_per_token=3)


def test_layout():
    def layout(vocabulary: Vocabulary) -> tuple[int, ...]:
        return (
            vocabulary.visual_begin,
            vocabulary.visual_end,
            vocabulary.image_begin_id,
            vocabulary.image_end_id,
            vocabulary.size,
            vocabulary.placeholder_id,
        )

    assert layout(PLAIN) == (10, 16, 16, 17, 18, 18)
    assert layout(OWN) == (10, 16, 7, 8, 16, 16)
    assert layout(CODES) == (10, 11, 11, 12, 13, 13)


def test_kinds_of_ids():
    ids = torch.arange(19)
    assert ids[PLAIN.is_visual(ids)].tolist() == list(range(10, 16))
    assert ids[PLAIN.is_control(ids)].tolist() == [16, 17]
    assert not OWN.is_control(ids).any()
    assert ids[CODES.is_visual(ids)].tolist() == [10]


def test_spans():
    image = torch.tensor([[0, 5, 2, 2]])
    assert PLAIN.span(image).tolist() == [[16, 10, 15, 12, 12, 17]]
    assert OWN.span(image).tolist() == [[7, 10, 15, 12, 12, 8]]
    assert PLAIN.tokenizer_ids(PLAIN.visual_ids(image)).tolist() == image.tolist()
    assert CODES.span(torch.tensor([[[0, 5, 2]] * 4])).tolist() == [[11, 10, 10, 10, 10, 12]]
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=rf"\[0, 6\), got {wrong}"):
            PLAIN.span(torch.tensor([[0, wrong, 0, 0]]))


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2, 3],
        [1, 16, 10, 11, 12, 13, 17, 2],
        [16, 18, 18, 18, 18, 17, 16, 10, 11, 12, 13, 17],
        [1, 16],
        [1, 16, 10, 11],
        [1, 16, 10, 11, 12, 13],
    ],
)
def test_legal_sequences(ids: list[int]):
    PLAIN.check_spans(torch.tensor([[1] * len(ids), ids]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 12, 3], "visual id 12 at position 1 is outside an image"),
        ([12], "visual id 12 at position 0 is outside an image"),
        ([16, 10, 11, 12, 13, 14, 17], "got 5 and then 17 at position 6"),
        ([16, 10, 11, 12, 17], "got 3 and then 17 at position 4"),
        ([16, 10, 11, 12, 13, 2], "got 4 and then 2 at position 5"),
        ([16, 10, 11, 12, 13, 14], "got 5 at the end"),
        ([1, 18], "visual id 18 at position 1 is outside"),
        ([1, 19], "got 19"),
        ([-1, 3], "got -1"),
    ],
)
def test_illegal_sequences(ids: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        PLAIN.check_spans(torch.tensor([ids]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_size": 0}, "text_size must be at least 1, got 0"),
        ({"own_begin_id": 3}, "together"),
        ({"own_begin_id": 3, "own_end_id": 10}, r"text ids in \[0, 10\), got 10"),
        ({"own_begin_id": 3, "own_end_id": 3}, "differ"),
    ],
)
def test_bad_layouts(changes: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**({"text_size": 10, "visual_size": 6, "image_tokens": 4} | changes))
