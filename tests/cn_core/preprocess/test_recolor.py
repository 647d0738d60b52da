"""Grey pictures: scikit-image's L* and V of RGB, not of BGR."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.recolor import GammaSettings, NoSettings, grey, intensity, invert, luminance
from skimage.color import rgb2hsv, rgb2lab


def cube() -> np.ndarray:
    """Colours all over the cube, pure ones too: 25 125 3."""
    axis = np.linspace(0, 1, 25, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis[::6], axis, indexing="ij"), axis=-1)
    return grid.reshape(25, 125, 3)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 1.7])
def test_luminance_and_intensity(gamma):
    colours = cube()
    images = torch.from_numpy(colours).movedim(-1, 0)[None]
    for preprocess, levels in ((luminance, rgb2lab(colours)[..., 0] / 100), (intensity, rgb2hsv(colours)[..., 2])):
        got = preprocess(images, GammaSettings(gamma=gamma))[0, 0].numpy()
        np.testing.assert_allclose(got, levels.clip(0, 1) ** gamma, atol=0.012 if gamma == 0.5 else 1 / 255)


def test_red_and_blue_are_not_mistaken():
    pure = torch.eye(3)[None, :, :, None].expand(1, 3, 3, 2)  # rows: red, green, blue
    rows = luminance(pure, GammaSettings())[0, 0, :, 0]
    np.testing.assert_allclose(rows, [0.5324, 0.8774, 0.3230], atol=0.002)


def test_grey_is_luma_in_floats(photos):
    expected = torch.einsum("bchw,c->bhw", photos, torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(grey(photos, NoSettings())[:, 0], expected, rtol=0, atol=1e-6)
    assert len(grey(photos, NoSettings()).unique()) > 1000


def test_invert_is_exact_and_its_own_inverse(photos):
    assert torch.equal(invert(photos, NoSettings()), 1 - photos)
    torch.testing.assert_close(invert(invert(photos, NoSettings()), NoSettings()), photos, rtol=0, atol=1e-7)
