import pytest
import torch
from torch.nn import functional

from semhitok.losses import augment

PARTS = ("color", "translation", "cutout")


def only(part: str) -> dict[str, bool]:
    return {name: name == part for name in PARTS}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(16, 3, 16, 24, generator=seeded(7)) * 2 - 1


@pytest.mark.parametrize("part", PARTS)
def test_the_generator_decides(images, part):
    torch.manual_seed(0)
    first = augment(images, generator=seeded(), **only(part))
    torch.manual_seed(1)  # the global generator must not matter
    assert torch.equal(first, augment(images, generator=seeded(), **only(part)))
    assert not torch.equal(first, augment(images, generator=seeded(1), **only(part)))
    generator = seeded()
    assert torch.equal(first, augment(images, generator=generator, **only(part)))
    assert not torch.equal(first, augment(images, generator=generator, **only(part)))


@pytest.mark.parametrize("part", PARTS)
def test_each_image_has_its_own_draw(images, part):
    repeated = images[:1].expand(16, -1, -1, -1)
    assert len(augment(repeated, generator=seeded(), **only(part)).unique(dim=0)) > 1


def test_differentiable():
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, generator=seeded(3)), (images,))


def test_nothing_chosen_changes_nothing(images):
    result = augment(images, generator=seeded(), color=False, translation=False, cutout=False)
    assert torch.equal(result, images)


def test_color_by_hand(images):
    result = augment(images, generator=seeded(5), **only("color"))
    brightness, saturation, contrast = torch.rand(3, 16, generator=seeded(5))
    for index, image in enumerate(images):
        expected = image + brightness[index] - 0.5
        expected = torch.lerp(expected.mean(0, keepdim=True).expand(3, -1, -1), expected, 2 * saturation[index])
        expected = torch.lerp(expected.mean().expand_as(expected), expected, 0.5 + contrast[index])
        torch.testing.assert_close(result[index], expected)


def test_translation_is_a_zero_padded_shift(images):
    """Brute force: every result is one of the 5 x 7 shifts by up to 1/8 of the sides."""
    result = augment(images, generator=seeded(), **only("translation"))
    padded = functional.pad(images, (3, 3, 2, 2))
    shifts = []
    for index in range(16):
        matches = [
            (2 - top, 3 - left)
            for top in range(5)
            for left in range(7)
            if torch.equal(result[index], padded[index, :, top : top + 16, left : left + 24])
        ]
        assert len(matches) == 1
        shifts += matches
    assert {min(down for down, _ in shifts), max(down for down, _ in shifts)} == {-2, 2}
    assert {min(right for _, right in shifts), max(right for _, right in shifts)} == {-3, 3}


def test_cutout_is_one_box_of_half_the_sides(images):
    images = images + 3 * images.sign()  # no zeros of its own
    result = augment(images, generator=seeded(), **only("cutout"))
    full_boxes = 0
    for before, after in zip(images, result, strict=True):
        hole = (after == 0).all(dim=0)
        rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert hole.sum() == height * width  # a box without gaps
        assert 4 <= height <= 8  # its centre lies inside the image
        assert 6 <= width <= 12
        assert torch.equal(after[:, ~hole], before[:, ~hole])
        full_boxes += (height, width) == (8, 12)
    assert full_boxes > 0


def test_keeps_the_type(images):
    assert augment(images.bfloat16(), generator=seeded()).dtype == torch.bfloat16
