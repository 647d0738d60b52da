"""Black and white: scikit-image's Otsu, and comparisons."""

import numpy as np
import torch
from controlnet_kit.cn_core.preprocess.binary import BinarySettings, ThresholdSettings, binary, threshold
from skimage.filters import threshold_otsu


def test_otsu_is_scikit_images(photos, levels):
    grey = np.rint(levels @ [0.299, 0.587, 0.114]).astype(np.uint8)
    expected = grey > threshold_otsu(grey)
    got = binary(photos[:1], BinarySettings(method="Otsu"))[0, 0].numpy() > 0.5
    assert (got == expected).mean() > 0.995  # OpenCV's grey differs by a level here and there


def test_fixed_is_brighter_than():
    ramp = (torch.arange(256) / 255).expand(1, 3, 4, -1)
    for level in (0, 100, 255):
        expected = (torch.arange(256) > level).float().expand(1, 3, 4, -1)
        assert torch.equal(binary(ramp, BinarySettings(threshold=level)), expected)


def test_threshold_looks_at_the_weakest_or_the_strongest_channel(photos):
    levels = (photos * 255).round()
    weakest, strongest = ThresholdSettings(threshold=90), ThresholdSettings(channel="strongest", threshold=90)
    for settings, reduced in ((weakest, levels.amin(1)), (strongest, levels.amax(1))):
        assert torch.equal(threshold(photos, settings), (reduced > 90).float()[:, None].expand(-1, 3, -1, -1))
