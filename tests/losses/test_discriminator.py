import pytest
import torch
from torch import nn

from semhitok.losses import PatchDiscriminator


@pytest.mark.parametrize(
    ("layers", "height", "width", "grid"), [(3, 32, 32, (2, 2)), (3, 64, 48, (6, 4)), (1, 6, 7, (1, 1))]
)
def test_one_logit_per_patch(layers, height, width, grid):
    logits = PatchDiscriminator(channels=8, layers=layers)(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 1, *grid)


@pytest.mark.parametrize("training", [True, False])
def test_no_batch_statistics(training):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=8, layers=2).train(training)
    images = torch.randn(4, 3, 32, 32)
    together = discriminator(images)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in discriminator.modules())
    assert not list(discriminator.buffers())


def test_width_doubles_up_to_eight_times():
    discriminator = PatchDiscriminator(channels=16, layers=5)
    widths = [module.out_channels for module in discriminator.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [16, 32, 64, 128, 128, 128, 1]
    strides = [module.stride[0] for module in discriminator.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [2, 2, 2, 2, 2, 1, 1]


def test_it_sees_brightness():
    """Normalising the first layer would hide a constant shift; the generator could then drift in brightness."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=8)
    dark, bright = torch.full((2, 3, 32, 32), -0.5), torch.full((2, 3, 32, 32), 0.5)
    assert not torch.allclose(discriminator(dark), discriminator(bright))


def test_it_can_tell_two_kinds_of_images_apart():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=8, layers=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    for _ in range(30):
        smooth = torch.randn(4, 3, 1, 1).expand(-1, -1, 16, 16)
        noise = torch.randn(4, 3, 16, 16)
        loss = torch.relu(1 - discriminator(smooth)).mean() + torch.relu(1 + discriminator(noise)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


def test_one_sentence_errors():
    with pytest.raises(ValueError, match="multiples of 8, but got 12"):
        PatchDiscriminator(channels=12)
    with pytest.raises(ValueError, match="layers=0"):
        PatchDiscriminator(layers=0)
    with pytest.raises(ValueError, match="at least 24 pixels a side, but got 23 x 64"):
        PatchDiscriminator(channels=8)(torch.zeros(1, 3, 23, 64))
