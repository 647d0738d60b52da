"""Canny: equal to OpenCV's, batch by batch, in every float type."""

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny


@pytest.fixture
def pictures() -> np.ndarray:
    """2 40 56 3 uint8 with a bright square and a disc."""
    images = np.full((2, 40, 56, 3), 30, np.uint8)
    cv2.rectangle(images[0], (10, 8), (40, 30), (200, 220, 90), -1)
    cv2.circle(images[1], (25, 20), 12, (250, 60, 60), -1)
    return images


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_equals_opencv_picture_by_picture(pictures: np.ndarray, dtype: torch.dtype) -> None:
    images = torch.from_numpy(pictures).movedim(-1, 1).double().div(255)
    settings = CannySettings(low_threshold=50, high_threshold=120)
    hints = canny(images.to(dtype), settings)
    assert hints.dtype == dtype and hints.shape == (2, 3, 40, 56)
    for hint, picture in zip(hints, pictures, strict=True):
        expected = torch.from_numpy(cv2.Canny(picture, 50, 120)).to(dtype) / 255
        if dtype in (torch.float32, torch.float64):
            torch.testing.assert_close(hint, expected.expand(3, -1, -1), rtol=0, atol=0)
        else:  # eight bits of mantissa move a colour by a level; the lines stay
            assert (hint[0] - expected).abs().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_eight_bits_are_rounded_in_the_pictures_own_type(photos: torch.Tensor, dtype: torch.dtype) -> None:
    """Released ControlNets and ours were trained on hints that were made so: not one bit may change."""
    images = (photos + torch.rand(photos.shape, generator=torch.Generator().manual_seed(8)) / 100).to(dtype)
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
    expected = torch.from_numpy(np.stack([cv2.Canny(image, 100, 200) for image in pixels])).to(dtype).div(255)
    assert torch.equal(canny(images, CannySettings()), expected[:, None].expand(-1, 3, -1, -1))


def test_takes_values_outside_the_range_and_non_contiguous_batches(pictures: np.ndarray) -> None:
    images = torch.from_numpy(pictures).movedim(-1, 1).float().div(255)
    torch.testing.assert_close(
        canny(images * 3 - 1, CannySettings()), canny((images * 3 - 1).clamp(0, 1), CannySettings())
    )
    assert canny(images.transpose(2, 3), CannySettings()).shape == (2, 3, 56, 40)
