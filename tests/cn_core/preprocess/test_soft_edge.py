"""Soft edges: the formula with SciPy's filters."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.soft_edge import SoftEdgeSettings, safe, soft_edge
from scipy.ndimage import correlate, gaussian_filter

SCHARR = np.array([[3, 10, 3], [0, 0, 0], [-3, -10, -3]]) / 32


@pytest.mark.parametrize("scales", [1, 3])
def test_it_is_the_formula(photos, frame, scales):
    total = np.zeros(frame.shape)
    for sigma in 2.0 ** np.arange(scales):
        blurred = gaussian_filter(frame.astype(np.float64), (sigma, sigma, 0), mode="mirror", truncate=6)
        slopes = [correlate(blurred, kernel[:, :, None], mode="mirror") for kernel in (SCHARR, SCHARR.T)]
        total += sigma * np.hypot(*slopes)
    edges = total.max(axis=2)
    expected = (edges / np.sort(edges, axis=None)[round(0.95 * (edges.size - 1))]).clip(0, 1)
    got = soft_edge(photos[:1], SoftEdgeSettings(scales=scales, white_percentile=95.0))[0, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=0.03)
    assert np.abs(got - expected).mean() < 0.005


def test_an_edge_is_brightest_where_it_is():
    step = torch.zeros(1, 3, 40, 60)
    step[..., 30:] = 0.7
    profile = soft_edge(step, SoftEdgeSettings())[0, 0, 20]
    assert profile.argmax() in (29, 30) and profile[29] == profile[30] == 1
    assert (profile[:29].diff() >= 0).all() and profile[0] < 0.01


def test_noise_of_a_flat_picture_stays_dark():
    noise = 0.5 + (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) - 0.5) / 255
    assert soft_edge(noise, SoftEdgeSettings()).max() < 0.1


def test_safe_steps_are_heds():
    x = np.linspace(0, 0.999, 100, dtype=np.float32)
    np.testing.assert_allclose(safe(x, 2), (x * 3).astype(int) / 2)  # as controlnet_aux: 0, 0.5, 1
    assert safe(x, 0) is x


def test_safe_steps_in_the_hint(photos):
    assert soft_edge(photos, SoftEdgeSettings(safe_steps=4)).unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
