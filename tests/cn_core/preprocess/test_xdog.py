"""XDoG: the formula with SciPy's Gaussian."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.xdog import XDoGSettings, xdog
from scipy.ndimage import gaussian_filter


@pytest.mark.parametrize("threshold", [16, 32])
def test_it_is_the_formula(photos, frame, threshold):
    narrow, wide = (gaussian_filter(frame * 255, (sigma, sigma, 0), mode="mirror", truncate=4) for sigma in (0.5, 5))
    expected = 2 * (wide - narrow).min(axis=2) > threshold
    got = xdog(photos[:1], XDoGSettings(threshold=threshold))[0, 0].numpy()
    assert (got == expected).mean() > 0.999
    assert 0.02 < expected.mean() < 0.4


def test_strokes_are_where_it_is_darker_than_around():
    paper = torch.ones(1, 3, 40, 40)
    paper[..., 20, :] = 0
    hint = xdog(paper, XDoGSettings())
    assert (hint[..., 20, :] == 1).all() and (hint[..., :15, :] == 0).all()
    assert np.array_equal(hint.unique(), [0, 1])
