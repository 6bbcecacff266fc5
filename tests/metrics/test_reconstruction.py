import numpy as np
import pytest
import skimage.metrics
import torch
from einops import rearrange
from torchmetrics.functional.image import peak_signal_noise_ratio

from semhitok.metrics.reconstruction import MAXIMUM_PSNR, ReconstructionMetrics, psnr_per_image, ssim_per_image


def pair(count=5, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    originals = torch.rand(count, 3, size, size, generator=generator) * 2 - 1
    noise = torch.randn(originals.shape, generator=generator)
    return originals, originals + noise * torch.linspace(0.1, 1.0, count).view(-1, 1, 1, 1)


def unit(images):
    return (images.double().clamp(-1, 1).numpy() + 1) / 2


def test_psnr_is_that_of_torchmetrics_and_scikit_image():
    originals, copies = pair()
    found = psnr_per_image(originals, copies)
    clamped = (copies.clamp(-1, 1) + 1) / 2, (originals + 1) / 2
    library = peak_signal_noise_ratio(*clamped, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(found, library)
    for one, two, value in zip(unit(originals), unit(copies), found, strict=True):
        expected = skimage.metrics.peak_signal_noise_ratio(one, two, data_range=1.0)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_that_of_scikit_image_on_mirrored_images():
    originals, copies = pair()
    mirror = lambda image: np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect")  # noqa: E731
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    window |= {"data_range": 1.0, "channel_axis": 0}
    for one, two, value in zip(unit(originals), unit(copies), ssim_per_image(originals, copies), strict=True):
        expected = skimage.metrics.structural_similarity(mirror(one), mirror(two), **window)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_one_image_is_enough_for_ssim():
    originals, copies = pair(count=1)
    assert ssim_per_image(originals, copies).shape == (1,)


def test_means_over_batches_are_means_over_images():
    originals, copies = pair()
    distance = lambda reconstruction, original: (reconstruction - original).abs().flatten(1).mean(1)  # noqa: E731
    metrics = ReconstructionMetrics(perceptual=distance)
    metrics.update(originals[:2], copies[:2])
    metrics.update(originals[2:], copies[2:])
    result = metrics.result()
    assert (result.images, result.height, result.width) == (5, 24, 24)
    assert result.psnr == pytest.approx(psnr_per_image(originals, copies).mean().item(), abs=1e-5)
    assert result.ssim == pytest.approx(ssim_per_image(originals, copies).mean().item(), abs=1e-5)
    assert result.perceptual == pytest.approx(np.abs(2 * unit(copies) - 2 * unit(originals)).mean(), abs=1e-5)


def test_an_exact_copy_has_a_finite_psnr_and_no_perceptual_figure_unless_asked():
    originals, _ = pair()
    metrics = ReconstructionMetrics()
    metrics.update(originals, originals)
    result = metrics.result()
    assert (result.psnr, result.perceptual) == (MAXIMUM_PSNR, None)
    assert result.ssim == pytest.approx(1.0, abs=1e-5)


def test_sizes_must_agree_and_something_must_be_measured():
    originals, copies = pair()
    with pytest.raises(ValueError, match="at least one batch"):
        ReconstructionMetrics().result()
    with pytest.raises(ValueError, match="all must have one size"):
        ReconstructionMetrics().update(originals, copies[..., :20])
    metrics = ReconstructionMetrics()
    metrics.update(originals, copies)
    with pytest.raises(ValueError, match="all must have one size"):
        metrics.update(rearrange(originals, "b c (h p) w -> (b p) c h w", p=2)[..., :12], copies[..., :12, :12])
