"""BHWC in, BCHW out, and back."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.nodes.boundary import to_image, to_pixels


def test_rgb_is_not_copied():
    image = torch.rand(2, 4, 5, 3)
    pixels = to_pixels(image)
    assert pixels.shape == (2, 3, 4, 5)
    assert pixels.data_ptr() == image.data_ptr()
    assert torch.equal(to_image(pixels), image)


def test_grey_is_repeated():
    image = torch.rand(2, 4, 5, 1)
    assert torch.equal(to_pixels(image), torch.cat([image.movedim(-1, 1)] * 3, dim=1))


def test_alpha_is_composited_over_black():
    image = torch.rand(2, 4, 5, 4)
    assert torch.equal(to_pixels(image), (image[..., :3] * image[..., 3:]).movedim(-1, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_broken_picture_is_named(value):
    image = torch.rand(3, 4, 5, 3)
    image[1, 2, 3, 0] = value
    with pytest.raises(HintError, match="in picture 1 of its batch"):
        to_pixels(image)


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (1, 0, 5, 3)])
def test_nothing_is_refused(shape):
    with pytest.raises(HintError, match="The image is empty"):
        to_pixels(torch.zeros(shape))
