"""Line art standard: the formula with SciPy's Gaussian and NumPy's median."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.lineart import LineartSettings, lineart
from scipy.ndimage import gaussian_filter


@pytest.mark.parametrize(("sigma", "threshold"), [(6.0, 8), (2.0, 3), (0.5, 16)])
def test_it_is_the_formula(photos, frame, sigma, threshold):
    x = frame.astype(np.float64) * 255
    blurred = gaussian_filter(x, (sigma, sigma, 0), mode="mirror", truncate=4)
    intensity = (blurred - x).min(axis=2).clip(0, 255)
    strong = intensity[intensity > threshold]
    expected = (intensity / max(16, np.median(strong) if strong.size else 0) * 127).clip(0, 255) / 255
    got = lineart(photos[:1], LineartSettings(gaussian_sigma=sigma, intensity_threshold=threshold))[0, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=2 / 255)
    assert np.abs(got - expected).mean() < 0.2 / 255


def test_black_ink_on_white_paper_is_white_on_black():
    paper = torch.ones(1, 3, 40, 40)
    paper[..., 20, :] = 0
    hint = lineart(paper, LineartSettings())
    assert (hint[..., 20, :] > 0.45).all() and (hint[..., :18, :] == 0).all()
    assert len(hint.unique()) == 2  # ink, and nothing


def test_more_than_256_levels(photos):
    assert len(lineart(photos, LineartSettings()).unique()) > 1000
