"""The oracle below is plain torch on plain NCHW tensors, written from the papers; it shares no code with the module."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from semhitok.losses import VGGLayer, VGGPerceptual
from semhitok.storage.cache import weights_path

PLAN = [[3, 64, 64], [64, 128, 128], [128, 256, 256, 256], [256, 512, 512, 512], [512, 512, 512, 512]]


def oracle(
    convolutions: list[list[tuple[Tensor, Tensor]]],
    heads: list[Tensor],
    first: Tensor,
    second: Tensor,
    pool: Any = None,
) -> Tensor:
    """Zhang et al. 2018, eq. 1, for images already scaled as the network wants them."""
    pool = pool or functional.max_pool2d
    distance = torch.zeros(len(first))
    for index, (block, head) in enumerate(zip(convolutions, heads, strict=True)):
        if index > 0:
            first, second = pool(first, 2), pool(second, 2)
        for kernel, bias in block:
            first, second = (functional.relu(functional.conv2d(x, kernel, bias, padding=1)) for x in (first, second))
        units = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (first, second)]
        distance = distance + ((units[0] - units[1]).square() * head[:, None, None]).sum(1).mean((1, 2))
    return distance


def random_convolutions(taps: int) -> list[list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)

    def convolution(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        return kernel, 0.1 * torch.randn(outputs, generator=generator)

    return [[convolution(*pair) for pair in pairwise(widths)] for widths in PLAN[:taps]]


def parameters(block: nn.Module) -> list[tuple[Tensor, Tensor]]:
    convolutions = [child for child in block.children() if isinstance(child, nn.Conv2d)]
    return [(convolution.weight, convolution.bias) for convolution in convolutions if convolution.bias is not None]


def pair(side: int = 16, batch: int = 2) -> tuple[Tensor, Tensor]:
    first, second = torch.rand(2, batch, 3, side, side + 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return first, second


def caffe(images: Tensor) -> Tensor:
    return (images + 1) * 127.5 - torch.tensor([122.679, 116.669, 104.007])[:, None, None]


@pytest.mark.parametrize(("deepest_layer", "taps"), [("conv1_2", 1), ("conv3_3", 3), ("conv5_3", 5)])
def test_random_weights_against_the_oracle(deepest_layer: VGGLayer, taps: int):
    torch.manual_seed(0)
    model = VGGPerceptual(deepest_layer=deepest_layer)
    convolutions = [parameters(block) for block in model.blocks]
    assert [[kernel.shape[1] for kernel, _ in block] for block in convolutions] == [plan[:-1] for plan in PLAN[:taps]]
    heads = [torch.full((plan[-1],), 1 / taps) for plan in PLAN[:taps]]
    prediction, target = pair()
    prediction.requires_grad_()
    expected = oracle(convolutions, heads, caffe(prediction), caffe(target))
    distance = model(prediction, target)
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-7)
    weights = torch.tensor([1.0, -2.0])  # the images of a batch must keep their own gradients
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), prediction)
    (gradient,) = torch.autograd.grad((distance * weights).sum(), prediction)
    # Not exact: another order of summation moves a few values across the kinks of ReLU and pooling.
    assert (gradient - expected_gradient).norm() < 0.02 * expected_gradient.norm()


def test_average_pooling_against_the_oracle():
    torch.manual_seed(0)
    models = {pooling: VGGPerceptual(deepest_layer="conv2_2", pooling=pooling) for pooling in ("max", "average")}
    models["average"].load_state_dict(models["max"].state_dict())
    convolutions = [parameters(block) for block in models["max"].blocks]
    heads = [torch.full((plan[-1],), 1 / 2) for plan in PLAN[:2]]
    first, second = pair()
    found = models["average"](first, second)
    expected = oracle(convolutions, heads, caffe(first), caffe(second), pool=functional.avg_pool2d)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found, models["max"](first, second))


def test_frozen_and_only_the_prediction_gets_a_gradient():
    model = VGGPerceptual(deepest_layer="conv1_2")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    prediction, target = (images.requires_grad_() for images in pair())
    model.train()(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None


def test_zero_for_equal_images_and_independent_of_the_batch():
    model = VGGPerceptual(deepest_layer="conv2_2")
    first, second = pair()
    assert torch.equal(model(first, first), torch.zeros(2))
    torch.testing.assert_close(model(first, second)[1:], model(first[1:], second[1:]))


def test_features_of_zero_give_no_gradient_instead_of_nan():
    model = VGGPerceptual(deepest_layer="conv1_2")
    for _, bias in parameters(model.blocks[0]):
        bias.data.fill_(-1e6)  # every ReLU shut
    prediction, target = pair()
    prediction.requires_grad_()
    distance = model(prediction, target)
    distance.sum().backward()
    assert torch.equal(distance, torch.zeros(2))
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_autocast_is_followed_and_the_distance_stays_fp32():
    torch.manual_seed(0)
    model = VGGPerceptual(deepest_layer="conv2_2")
    first, second = pair(32)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.features(first)[0].dtype == torch.bfloat16
        low = model(first, second)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, model(first, second), rtol=0.02, atol=0)


def test_one_sentence_errors(tmp_path):
    with pytest.raises(ValueError, match=r"deepest_layer must be one of conv1_2, .* but got 'conv9'"):
        VGGPerceptual(deepest_layer="conv9")  # pyright: ignore[reportArgumentType]
    model = VGGPerceptual(deepest_layer="conv2_2")
    with pytest.raises(ValueError, match="one shape"):
        model(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="at least 2 pixels a side, but got 1 x 8"):
        model(torch.zeros(1, 3, 1, 8), torch.zeros(1, 3, 1, 8))
    foreign = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(ValueError, match="LPIPS heads"):
        VGGPerceptual.from_lpips(foreign, foreign, deepest_layer="conv1_2")
    for content in (b"", b"not weights"):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ValueError, match="LPIPS heads"):
            VGGPerceptual.from_lpips(tmp_path / "broken", foreign, deepest_layer="conv1_2")
    with pytest.raises(ValueError, match="LPIPS heads"):
        VGGPerceptual.from_lpips(tmp_path / "missing", foreign, deepest_layer="conv1_2")


def test_from_hed_reads_the_keras_layout(tmp_path):
    """Keras keeps kernels as (height, width, in, out) and this network takes BGR."""
    h5py = pytest.importorskip("h5py")
    convolutions, path = random_convolutions(2), tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        for block, content in enumerate(convolutions, start=1):
            for name, (kernel, bias) in zip(["conv2d", "conv2d_1"], content, strict=True):
                file[f"block{block}/layers/{name}/vars/0"] = kernel.permute(2, 3, 1, 0).numpy()
                file[f"block{block}/layers/{name}/vars/1"] = bias.numpy()
    first, second = pair()
    model = VGGPerceptual.from_hed(path, deepest_layer="conv2_2")
    expected = oracle(
        convolutions, [torch.full((w,), 0.5) for w in (64, 128)], *(caffe(x).flip(1) for x in (first, second))
    )
    torch.testing.assert_close(model(first, second), expected, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="not the VGG16 weights file"):  # the third block is not in the file
        VGGPerceptual.from_hed(path, deepest_layer="conv3_3")
    with pytest.raises(ValueError, match="not the VGG16 weights file"):
        VGGPerceptual.from_hed(tmp_path / "missing.h5")
    path.write_bytes(b"not an HDF5 file")
    with pytest.raises(ValueError, match="not the VGG16 weights file"):
        VGGPerceptual.from_hed(path)


def test_from_lpips_reads_torchvision_and_lpips_layouts(tmp_path):
    convolutions = random_convolutions(3)
    names = [0, 2, 5, 7, 10, 12, 14]  # positions of VGG16's convolutions in torchvision's `features`
    flat = [convolution for block in convolutions for convolution in block]
    backbone = {f"features.{name}.weight": kernel for name, (kernel, _) in zip(names, flat, strict=True)}
    backbone |= {f"features.{name}.bias": bias for name, (_, bias) in zip(names, flat, strict=True)}
    heads = [torch.rand(width, generator=torch.Generator().manual_seed(width)) for width in (64, 128, 256)]
    torch.save(backbone, tmp_path / "vgg16.pth")
    torch.save(
        {f"lin{index}.model.1.weight": head[None, :, None, None] for index, head in enumerate(heads)},
        tmp_path / "vgg.pth",
    )
    model = VGGPerceptual.from_lpips(tmp_path / "vgg16.pth", tmp_path / "vgg.pth", deepest_layer="conv3_3")
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[:, :, None, None]
    first, second = pair()
    expected = oracle(convolutions, heads, (first - shift) / scale, (second - shift) / scale)
    torch.testing.assert_close(model(first, second), expected, rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def real() -> VGGPerceptual:
    path = weights_path("vgg16_hed.h5")
    if not path.exists():
        pytest.skip(f"{path} is not there: semhitok data fetch")
    pytest.importorskip("h5py")
    return VGGPerceptual.from_hed(path)


@pytest.fixture(scope="module")
def photographs() -> tuple[Tensor, Tensor]:
    data = pytest.importorskip("skimage.data")

    def square(image) -> Tensor:
        images = torch.from_numpy(image).permute(2, 0, 1)[None, :, :300, :300].float() / 127.5 - 1
        return functional.interpolate(images, size=(64, 64), mode="bicubic", antialias=True).clamp(-1, 1)

    return square(data.chelsea()), square(data.coffee())


def blur(images: Tensor, sigma: float) -> Tensor:
    taps = torch.arange(-8, 9)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    images = functional.conv2d(functional.pad(images, (8, 8, 8, 8), mode="reflect"), kernel, groups=3)
    return functional.conv2d(images, kernel.transpose(2, 3), groups=3)


def test_real_weights_order_distortions(real: VGGPerceptual, photographs: tuple[Tensor, Tensor]):
    cat, coffee = photographs
    others = {
        "same": cat,
        "slight blur": blur(cat, 0.6),
        "medium blur": blur(cat, 1.2),
        "strong blur": blur(cat, 3.0),
        "other image": coffee,
    }
    with torch.no_grad():
        distances = {name: real(image, cat).item() for name, image in others.items()}
        brighter = [real((cat + shift).clamp(-1, 1), cat).item() for shift in (0.05, 0.2, 0.5)]
        shifted_pixels = real(torch.roll(cat, 1, dims=-1), cat).item()
    assert distances["same"] == 0
    assert sorted(distances, key=distances.__getitem__) == list(others)
    assert 0 < brighter[0] < brighter[1] < brighter[2] < distances["other image"]
    # What makes it perceptual: +0.2 in brightness is a larger L1 error than the medium blur, yet looks closer.
    assert (blur(cat, 1.2) - cat).abs().mean() < 0.15
    assert brighter[1] < distances["medium blur"]
    assert shifted_pixels < distances["strong blur"]


def test_real_weights_sharpen_a_blurred_image(real: VGGPerceptual, photographs: tuple[Tensor, Tensor]):
    """Descending the distance alone must bring the image nearer in pixels too."""
    cat, _ = photographs
    image = blur(cat, 2.0).requires_grad_()
    before = (image - cat).abs().mean().item()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        real(image, cat).sum().backward()
        optimizer.step()
    assert (image - cat).abs().mean().item() < before
