"""Frames: exact conversions, clear refusals, nothing changed on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess import frames
from controlnet_kit.cn_core.preprocess.frames import at_resolution, each_8bit, each_frame


def as_it_is(frame: np.ndarray) -> np.ndarray:
    return frame


def test_eight_bits_are_rounded_and_clamped_never_cut_off_or_wrapped():
    levels = torch.arange(256) / 255
    values = torch.cat([levels, levels + 0.4 / 255, levels - 0.4 / 255, torch.tensor([-0.02, 1.02, -1e9, 1e9])])
    got = each_8bit(values.expand(1, 3, 5, -1), as_it_is)[0, 0, 0] * 255
    expected = torch.cat([torch.arange(256.0)] * 3 + [torch.tensor([0.0, 255, 0, 255])])
    assert torch.equal(got.round(), expected) and (got - expected).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_eight_bits_are_those_of_torch_in_every_type(dtype):
    ties = (torch.arange(255) + 0.5) / 255
    values = torch.cat([ties, torch.rand(4000, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2]).to(dtype)
    got = frames.read_8bit(values.expand(3, 2, -1))
    assert np.array_equal(got[0, :, 0], values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy())


def test_floats_go_through_untouched_and_grey_becomes_three_channels(photos):
    values = photos + torch.rand(photos.shape) / 1000 * (photos < 0.99)
    assert torch.equal(each_frame(values, as_it_is), values)
    grey = each_frame(values, lambda frame: frame[..., 1].copy())
    assert torch.equal(grey, values[:, 1:2].expand(-1, 3, -1, -1))
    assert each_frame(values, lambda frame: frame * 3 - 1).aminmax() == (0, 1)


def test_results_are_laid_out_for_the_host_without_another_copy(photos):
    assert each_frame(photos, as_it_is).movedim(1, -1).is_contiguous()


def test_what_the_host_hands_over_is_read_without_a_copy(photos):
    image = photos.movedim(1, -1).contiguous().movedim(-1, 1)[0]
    assert np.shares_memory(frames.read(image), image.numpy())


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.zeros(0, 3, 8, 8), "empty"),
        (torch.zeros(1, 3, 0, 8), "empty"),
        (torch.zeros(1, 4, 8, 8), r"\(1, 4, 8, 8\) of torch.float32; .*\(batch, 3, height, width\)"),
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.full((2, 3, 8, 8), float("nan")), "NaN or infinite"),
        (torch.cat([torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), float("-inf"))]), "NaN or infinite"),
        (torch.tensor(float("inf"), dtype=torch.float16).expand(1, 3, 4, 4), "NaN or infinite"),
        (torch.zeros(1).expand(1, 3, 16384, 16384), "16384x16384 = 268435456 pixels.*67108864.*at most 8192"),
        (torch.zeros(1).expand(1, 3, 8, 40000), "40000x8.*32766 a side.*at most 6"),
    ],
)
def test_what_is_refused(images, expected):
    for each in (each_frame, each_8bit):
        with pytest.raises(HintError, match=expected):
            each(images, as_it_is)


def test_a_picture_16k_wide_works():
    wide = torch.rand(1, 3, 4, 16384)
    assert torch.equal(each_frame(wide, as_it_is), wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_resolution_is_the_short_side_and_zero_the_same_value(photos, dtype):
    images = photos.to(dtype)
    assert at_resolution(images, 0) is images
    resized = at_resolution(images, 48)
    assert resized.shape == (2, 3, 48, 64) and resized.dtype == dtype
    with pytest.raises(HintError, match=r"491520x16384.*Set a resolution of at most 1088\."):
        at_resolution(torch.rand(1, 3, 100, 3000), 16384)


def test_an_error_in_one_frame_of_many_arrives(photos):
    broken = photos.repeat(8, 1, 1, 1)
    broken[11, 1, 3, 4] = float("nan")
    with pytest.raises(HintError):
        each_frame(broken, as_it_is)


def test_inference_mode_and_gradients_are_no_trouble(photos):
    with torch.inference_mode():
        assert torch.equal(each_frame(photos * 1, as_it_is), photos)
    assert not each_frame(photos.clone().requires_grad_(), as_it_is).requires_grad
