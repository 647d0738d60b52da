"""Depth remap: NumPy's percentiles, one range for a video, as many levels as came in."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.preprocess.depth import DepthRemapSettings, depth_remap
from torch import Tensor


def ramps(*ranges: tuple[float, float]) -> Tensor:
    """One picture for each range, B 3 64 64."""
    return torch.stack([torch.linspace(low, high, 4096).view(64, 64).expand(3, -1, -1) for low, high in ranges])


def test_sixteen_bits_go_through():
    sixteen_bit = (torch.arange(65536).view(1, 1, 256, 256) / 65535).expand(1, 3, -1, -1)
    got = depth_remap(sixteen_bit * 0.37 + 0.2, DepthRemapSettings())
    assert len(got[:, 0].unique()) > 65000
    torch.testing.assert_close(got, sixteen_bit, rtol=0, atol=1e-6)


def test_one_range_for_all_frames_or_one_for_each():
    frames = ramps((0.2, 0.4), (0.2, 0.8))
    batch, each, off = (
        depth_remap(frames, DepthRemapSettings(normalise=how)).amax(dim=(1, 2, 3)) for how in ("batch", "frame", "off")
    )
    torch.testing.assert_close(batch, torch.tensor([1 / 3, 1.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(each, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(off, torch.tensor([0.4, 0.8]))


def test_values_of_any_range_are_taken_such_as_metres():
    torch.testing.assert_close(depth_remap(ramps((3, 80)), DepthRemapSettings()), ramps((0, 1)), rtol=0, atol=1e-5)


def test_percentiles_are_numpys():
    values = torch.randn(2, 1, 30, 40, generator=torch.Generator().manual_seed(6)).expand(-1, 3, -1, -1)
    low, high = np.percentile(values.numpy(), (2, 95))
    got = depth_remap(values, DepthRemapSettings(low_percentile=2.0, high_percentile=95.0))
    torch.testing.assert_close(got, ((values - low) / (high - low)).clamp(0, 1), rtol=0, atol=1e-5)


def test_near_far_and_gamma():
    ramp = ramps((0, 1))
    inverted = depth_remap(ramp, DepthRemapSettings(near=0.0, far=1.0))
    torch.testing.assert_close(inverted, 1 - ramp, rtol=0, atol=1e-6)
    window = depth_remap(ramp, DepthRemapSettings(near=0.75, far=0.25, gamma=2.0))
    torch.testing.assert_close(window, (2 * ramp - 0.5).clamp(0, 1) ** 2, rtol=0, atol=1e-5)
    with pytest.raises(ControlNetKitError, match=r"near is 0\.5 and far 0\.5"):
        DepthRemapSettings(near=0.5, far=0.5)


def test_a_constant_is_far_and_nothing_breaks():
    assert depth_remap(torch.full((1, 3, 4, 4), 0.6), DepthRemapSettings()).sum() == 0
