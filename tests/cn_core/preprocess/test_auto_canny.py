"""Automatic thresholds: OpenCV's edges at a quantile of the gradient."""

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.auto_canny import AutoCannySettings, auto_canny, auto_canny_edges
from scipy.ndimage import sobel


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_it_is_opencvs_canny_at_the_quantile(levels, share):
    channels = levels.astype(np.int32).transpose(2, 0, 1)
    slopes = [[sobel(channel, axis=axis, mode="nearest") for channel in channels] for axis in (0, 1)]
    steepness = np.sort(np.abs(slopes).sum(axis=0).max(axis=0), axis=None)
    high = int(steepness[int(np.ceil((1 - share) * steepness.size)) - 1])
    expected = cv2.Canny(levels, int(0.4 * high), high)
    assert np.array_equal(auto_canny_edges(levels, AutoCannySettings(edge_share=share)), expected)


def test_one_setting_draws_as_much_of_a_dark_picture(photos):
    bright, dark = (float(auto_canny(photos * light, AutoCannySettings()).mean()) for light in (1, 0.4))
    assert dark == pytest.approx(bright, rel=0.15) and bright > 0.05


def test_noise_is_no_edge():
    noise = 0.5 + (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) - 0.5) / 255
    assert auto_canny(noise, AutoCannySettings(edge_share=0.5)).sum() == 0
