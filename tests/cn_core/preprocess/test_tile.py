"""Lost detail: against torch's and SciPy's filters."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.preprocess.tile import (
    BlurSettings,
    GuidedTileSettings,
    TileSettings,
    blur,
    guided,
    tile,
    tile_guided,
)
from scipy.ndimage import uniform_filter
from skimage.filters import gaussian


@pytest.mark.parametrize("sigma", [0.5, 3.0, 9.0])
def test_blur_is_scikit_images(photos, frame, sigma):
    expected = gaussian(frame, sigma, mode="mirror", truncate=3, channel_axis=-1)
    got = blur(photos[:1], BlurSettings(sigma=sigma))[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(got, expected, atol=0.002)


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_tile_is_torchs_area_and_cubic(photos, scale):
    small = F.interpolate(photos, scale_factor=1 / scale, mode="area")
    expected = F.interpolate(small, size=photos.shape[2:], mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(tile(photos, TileSettings(scale=scale)), expected, rtol=0, atol=1e-5)


def test_tile_at_scale_1_is_the_picture(photos):
    assert torch.equal(tile(photos, TileSettings(scale=1.0)), photos)


def test_tile_shrinks_small_pictures_to_a_pixel_at_least():
    colours = tile(torch.rand(1, 3, 20, 5), TileSettings(scale=32.0))
    assert (colours.flatten(2).std(dim=2) < 1e-6).all()


def test_guided_filter_is_the_formula(frame):
    def mean(x):
        return np.stack([uniform_filter(channel, 9, mode="mirror") for channel in np.moveaxis(x, 2, 0)], axis=2)

    x = frame.astype(np.float64)
    a = (mean(x * x) - mean(x) ** 2) / (mean(x * x) - mean(x) ** 2 + 0.01)
    expected = mean(a) * x + mean(mean(x) - a * mean(x))
    np.testing.assert_allclose(guided(frame, 4, 0.01), expected, atol=1e-4)


def test_guided_keeps_a_step_and_smooths_noise():
    step = torch.zeros(1, 3, 40, 60)
    step[..., 30:] = 1
    noisy = (step + 0.05 * torch.randn(step.shape, generator=torch.Generator().manual_seed(4))).clamp(0, 1)
    got = tile_guided(noisy, GuidedTileSettings(scale=1.0))
    assert (got - step)[..., 5:-5].abs().max() < 0.25 and (got - step)[..., 35:-5].std() < 0.02
