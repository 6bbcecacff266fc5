"""Patches and pixels against loops, torch's own convolution and Pillow's own resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from semhitok.nn import Patchify, PixelHead
from semhitok.nn.patches import resize


def with_identity(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.eye(*layer.weight.shape))
        layer.bias.zero_()


def cut(images: Tensor, p: int) -> Tensor:
    """(B,N,3*p*p) by loops: patches row by row, in each channel, row, column."""
    tokens = []
    for top in range(0, images.shape[2], p):
        for left in range(0, images.shape[3], p):
            tokens.append(images[:, :, top : top + p, left : left + p].reshape(len(images), -1))
    return torch.stack(tokens, dim=1)


def test_patchify_cuts_row_by_row():
    images = torch.randn(2, 3, 8, 12)
    patchify = Patchify(4, 48)
    with_identity(patchify.project)
    assert torch.equal(patchify(images), cut(images, 4))


def test_patchify_is_a_convolution_with_stride():
    images, patchify = torch.randn(2, 3, 12, 8), Patchify(4, 10)
    kernel = patchify.project.weight.unflatten(1, (3, 4, 4))
    expected = F.conv2d(images, kernel, patchify.project.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(images), expected)


def test_patchify_takes_images_in_fp32_whatever_its_weights():
    images, patchify = torch.randn(1, 3, 8, 8), Patchify(4, 10).to(torch.bfloat16)
    assert torch.equal(patchify(images), patchify(images.bfloat16()))


def test_a_plain_head_puts_the_patches_back():
    images, head = torch.randn(2, 3, 8, 20), PixelHead(4, 48, 0)
    with_identity(head.project)
    assert torch.equal(head(cut(images, 4), (2, 5)), images)


def test_only_refinement_sees_across_the_borders_of_patches():
    tokens = torch.randn(1, 6, 16)
    other = tokens.clone()
    other[:, 1] += 1
    for refine, touched in ((0, 4), (8, 6)):  # two 3x3 convolutions reach two pixels further
        head = PixelHead(4, 16, refine)
        changed = (head(tokens, (2, 3)) != head(other, (2, 3)))[0].any(dim=0)
        assert head(tokens, (2, 3)).shape == (1, 3, 8, 12)
        rows, columns = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
        reach = touched - 4
        assert (rows.min(), rows.max()) == (0, 3 + reach)
        assert (columns.min(), columns.max()) == (4 - reach, 7 + reach)


@pytest.mark.parametrize("refine", [0, 8])
def test_the_last_layer_is_the_last_weight_before_the_pixels(refine: int):
    head, tokens = PixelHead(4, 16, refine), torch.randn(1, 4, 16)
    before = head(tokens, (2, 2))
    with torch.no_grad():
        head.last_layer.mul_(2)
        for bias in (head.project.bias, *(part.bias for part in head.refine.modules() if isinstance(part, nn.Conv2d))):
            bias.mul_(2 if bias.shape[0] == len(head.last_layer) else 1)
    torch.testing.assert_close(head(tokens, (2, 2)), 2 * before)  # everything behind it is linear


def test_resize_is_the_identity_where_the_size_fits_and_pillows_bicubic_elsewhere():
    images = torch.rand(2, 3, 13, 17) * 2 - 1
    assert resize(images, 13, 17) is images
    for height, width in ((9, 12), (20, 31), (13, 5)):
        resized = resize(images, height, width)
        for image, found in zip(images.flatten(0, 1), resized.flatten(0, 1), strict=True):
            picture = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.BICUBIC)
            np.testing.assert_allclose(found.numpy(), np.asarray(picture), atol=2e-5)
    assert resize(images.bfloat16(), 9, 9).dtype == torch.bfloat16
