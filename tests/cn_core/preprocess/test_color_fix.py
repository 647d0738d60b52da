"""Colour fix: coarse of one, fine of the other."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.color_fix import ColorFixSettings, color_fix
from scipy.ndimage import gaussian_filter


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 1.5])
def test_it_is_the_formula(photos, sharpness):
    image, reference = (photo.movedim(0, -1).numpy() for photo in photos)
    low, other = (gaussian_filter(one, (4, 4, 0), mode="mirror", truncate=4) for one in (image, reference))
    expected = (sharpness * (image - low) + other).clip(0, 1)
    got = color_fix(photos[:1], photos[1:], ColorFixSettings(variation=4.0, sharpness=sharpness))
    np.testing.assert_allclose(got[0].movedim(0, -1).numpy(), expected, atol=0.003)


def test_a_picture_with_a_tint_gets_its_own_colours_back(photos):
    tint = torch.tensor([0.8, 1.0, 0.9])[:, None, None]
    fixed = color_fix(photos * tint, photos, ColorFixSettings())
    assert (fixed - photos).abs().mean() < 0.35 * (photos * tint - photos).abs().mean()


@pytest.mark.parametrize(("pictures", "references"), [(1, 3), (3, 1), (3, 3)])
def test_batches_and_sizes(pictures, references):
    images, others = torch.rand(pictures, 3, 20, 30), torch.rand(references, 3, 11, 7, dtype=torch.float64)
    got = color_fix(images, others, ColorFixSettings())
    assert got.shape == (3, 3, 20, 30) and got.dtype == torch.float32
    single = color_fix(images[-1:], others[-1:], ColorFixSettings())
    assert torch.equal(got[-1:], single)


def test_batches_that_do_not_fit():
    with pytest.raises(HintError, match="2 pictures and 3 references"):
        color_fix(torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8), ColorFixSettings())
