"""EfficientNet-Lite: SAME padding by brute force, the whole network against the `efficientnet_lite_pytorch` package."""

import math

import pytest
import torch
from transformers import AutoModel

from semhitok.storage.cache import weights_path
from semhitok.teachers import (
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    convert_efficientnet_lite,
)
from semhitok.teachers.efficientnet import SameConv2d, scale_channels

VARIANTS = {
    "efficientnet-lite0": (EfficientNetLiteConfig.lite0, 224),
    "efficientnet-lite2": (EfficientNetLiteConfig.lite2, 260),
}


def reference_model(name):
    package = pytest.importorskip(
        "efficientnet_lite_pytorch",
        reason="the reference implementation is not installed",
    )
    return package.EfficientNet.from_name(name).eval()


def reference_grid(reference, pixel_values, blocks):
    """The reference's output after so many blocks, or after the head, as (B,N,D)."""
    with torch.no_grad():
        if blocks is None:
            grid = reference.extract_features(pixel_values)
        else:
            grid = reference._swish(reference._bn0(reference._conv_stem(pixel_values)))
            for block in reference._blocks[:blocks]:
                grid = block(grid)
    return grid.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7, 9])
def test_same_padding_equals_its_definition(kernel, stride, side):
    convolution = SameConv2d(1, 1, kernel, stride)
    image = torch.randn(1, 1, side, side)
    out = math.ceil(side / stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    expected = torch.zeros(out, out)
    for row in range(out):
        for column in range(out):
            for i in range(kernel):
                for j in range(kernel):
                    y, x = row * stride + i - before, column * stride + j - before
                    if 0 <= y < side and 0 <= x < side:
                        expected[row, column] += convolution.weight[0, 0, i, j] * image[0, 0, y, x]
    torch.testing.assert_close(convolution(image)[0, 0], expected + convolution.bias)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("blocks", [None, 6])
def test_random_network_equals_the_reference(name, blocks, tmp_path):
    variant, side = VARIANTS[name]
    torch.manual_seed(0)
    reference = reference_model(name)
    for module in reference.modules():  # fresh statistics are 0 and 1, which would hide a wrong folding
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    model = convert_efficientnet_lite(tmp_path / "weights.pth", variant(blocks))
    pixel_values = torch.randn(2, 3, side, side)
    with torch.no_grad():
        output = model(pixel_values)
    expected = reference_grid(reference, pixel_values, blocks)
    torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.pooler_output, expected.mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("blocks", [None, 11])
def test_published_weights_equal_the_reference(name, blocks):
    path = weights_path(f"{name.replace('-', '_')}.pth")
    if not path.is_file():
        pytest.skip("the published weights are not in the cache: run `semhitok data fetch`")
    variant, side = VARIANTS[name]
    reference = reference_model(name)
    reference.load_state_dict(torch.load(path, weights_only=True))
    pixel_values = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = convert_efficientnet_lite(path, variant(blocks))(pixel_values).last_hidden_state
    torch.testing.assert_close(output, reference_grid(reference, pixel_values, blocks), atol=1e-4, rtol=0)


def test_hidden_states_are_every_stage_of_the_way():
    config = EfficientNetLiteConfig.lite0(num_blocks=4)
    model = EfficientNetLiteModel(config).eval()
    output = model(torch.randn(1, 3, 32, 64), output_hidden_states=True)
    grids = [
        (512, 32),
        (512, 16),
        (128, 24),
        (128, 24),
        (32, 40),
    ]  # 16x32, 8x16, 4x8 cells
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == grids
    assert len(output.hidden_states) == config.num_hidden_layers + 1
    assert output.last_hidden_state.shape == (
        1,
        (32 // config.patch_size) * (64 // config.patch_size),
        40,
    )


def test_random_weights_keep_the_scale_of_activations():
    torch.manual_seed(0)
    tokens = EfficientNetLiteModel(EfficientNetLiteConfig.lite0(num_blocks=11))(torch.randn(2, 3, 64, 64))
    assert 1e-3 < tokens.last_hidden_state.std() < 1e3


def test_saves_and_loads_as_an_auto_model(tmp_path):
    model = EfficientNetLiteModel(EfficientNetLiteConfig.lite0(num_blocks=5)).eval()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, EfficientNetLiteModel)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixel_values = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(pixel_values).last_hidden_state, model(pixel_values).last_hidden_state)


@pytest.mark.parametrize(
    ("channels", "multiplier", "expected"),
    [(16, 1.1, 16), (24, 1.1, 24), (40, 1.1, 48), (10, 1.0, 16)],
)
def test_channels_are_multiples_of_eight(channels, multiplier, expected):
    # 17.6 -> 16 is within 10 %; 26.4 -> 24 as well; 44 -> 48 is the nearest; 10 -> 8 would lose 20 %, hence 16.
    assert scale_channels(channels, multiplier) == expected


def test_refuses_wrong_weights(tmp_path):
    with pytest.raises(ValueError, match="semhitok data fetch"):
        convert_efficientnet_lite(tmp_path / "absent.pth", EfficientNetLiteConfig.lite0())
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold"):
        convert_efficientnet_lite(tmp_path / "other.pth", EfficientNetLiteConfig.lite0())
    with pytest.raises(ValueError, match="1 to 16 blocks"):
        EfficientNetLiteConfig.lite0(num_blocks=17)
