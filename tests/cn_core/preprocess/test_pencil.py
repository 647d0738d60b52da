"""Pencil sketch: colour dodge with SciPy's Gaussian."""

import numpy as np
import torch
from controlnet_kit.cn_core.preprocess.pencil import INK, PencilSettings, pencil
from scipy.ndimage import gaussian_filter


def test_it_is_the_formula(photos, frame):
    grey = frame @ [0.299, 0.587, 0.114] + INK
    expected = (1.5 * (1 - grey / gaussian_filter(grey, 3, mode="mirror", truncate=4))).clip(0, 1)
    got = pencil(photos[:1], PencilSettings(sigma=3.0, contrast=1.5))[0, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=0.005)


def test_blank_paper_of_any_colour_is_black():
    for level in (0.0, 0.3, 1.0):
        assert pencil(torch.full((1, 3, 30, 40), level), PencilSettings()).max() < 1e-5
