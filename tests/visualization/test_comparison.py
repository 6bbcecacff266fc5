"""Where the pixels of a comparison go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semhitok.visualization.comparison import comparison, save_comparison


def test_originals_stand_over_their_reconstructions():
    values = torch.linspace(-1, 1, 5)
    originals = values.reshape(5, 1, 1, 1).expand(5, 3, 128, 160)
    picture = np.asarray(comparison(originals, -originals, columns=3))
    assert picture.shape == (4 * 128 + 2 * 4 + 4 + 4, 3 * 160 + 2 * 4, 3)
    for index in range(5):
        row, column = divmod(index, 3)
        top, left = row * (2 * 132 + 4), column * 164
        grey = round((float(values[index]) + 1) * 127.5)
        assert abs(picture[top : top + 128, left : left + 160].astype(int) - grey).max() <= 1
        assert abs(picture[top + 132 : top + 260, left : left + 160].astype(int) - (255 - grey)).max() <= 1
    assert (picture[:, 160:164] == 255).all()
    assert (picture[-128:, -160:] == 255).all()  # the place of the missing sixth


def test_small_images_are_enlarged_pixel_by_pixel_and_values_are_clamped():
    image = torch.tensor([[-3.0, 1.0], [0.0, 3.0]]).expand(1, 3, 2, 2)
    picture = np.asarray(comparison(image, image))
    assert picture.shape == (128 + 4 + 128, 128, 3)
    assert [picture[y, x, 0] for y, x in ((0, 0), (63, 63), (0, 64), (64, 0), (127, 127))] == [0, 0, 255, 128, 255]


def test_it_is_written_as_png(tmp_path: Path):
    save_comparison(tmp_path / "new" / "picture.png", torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("other", [(1, 3, 8, 9), (3, 8, 8), (1, 1, 8, 8)])
def test_other_shapes_are_refused(other: tuple[int, ...]):
    with pytest.raises(ValueError, match="one shape"):
        comparison(
            torch.zeros(1, 3, 8, 8) if len(other) == 4 and other[1] == 3 else torch.zeros(other), torch.zeros(other)
        )
