"""Optical flow: motions that are known, torchvision's colours."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.flow import FlowSettings, coloured, flow_hint, pair_flows
from scipy.ndimage import shift
from torch import Tensor
from torchvision.utils import flow_to_image


def moved(photos: Tensor, down: float, right: float) -> Tensor:
    """The first photo, enlarged and moved: 1 3 144 192."""
    photo = torch.nn.functional.interpolate(photos[:1], scale_factor=2, mode="bicubic").clamp(0, 1)
    return torch.from_numpy(shift(photo.numpy(), (0, 0, down, right), order=1, mode="nearest"))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_motion_that_is_known(photos, preset, direction):
    settings = FlowSettings(preset=preset, direction=direction)
    flow = pair_flows(moved(photos, 0, 0), moved(photos, 2.0, -3.0), settings)[0, 20:-20, 20:-20]
    sign = 1 if direction == "forward" else -1
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), [-3 * sign, 2 * sign], atol=0.25)


def test_colours_are_torchvisions():
    flow = np.random.default_rng(1).normal(size=(50, 60, 2)).astype(np.float32)
    theirs = flow_to_image(torch.from_numpy(flow).movedim(-1, 0)).movedim(0, -1).numpy()
    ours = coloured(flow / np.sqrt((flow**2).sum(axis=-1)).max())
    assert np.array_equal(np.floor(ours * 255), theirs)  # they cut off


def test_one_for_each_frame_and_one_scale_for_all(photos):
    frames = torch.cat([moved(photos, 0, 0), moved(photos, 0, 1), moved(photos, 0, 5)])
    hints = flow_hint(frames, None, FlowSettings())
    assert hints.shape == frames.shape and torch.equal(hints[1], hints[2])
    saturation = (hints.amax(dim=1) - hints.amin(dim=1))[:, 30:-30, 30:-30].mean(dim=(1, 2))
    assert saturation[1] > 2 * saturation[0]
    pair = flow_hint(frames[:1], frames[1:2], FlowSettings(full_color=10.0))
    alone = flow_hint(frames, None, FlowSettings(full_color=10.0))[:1]
    assert torch.equal(pair, alone)


def test_stillness_is_white(photos):
    assert flow_hint(photos[:1], photos[:1], FlowSettings()).amin() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (16, 200), (300, 3)])
def test_sizes_that_opencv_fails_at(size):
    """OpenCV 5.0's DIS crashes the process on some pictures of 16 rows."""
    for preset in ("ultrafast", "medium"):
        assert flow_hint(torch.rand(2, 3, *size), None, FlowSettings(preset=preset)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("images", "following", "expected"),
    [
        (torch.rand(1, 3, 20, 20), None, "one picture"),
        (torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 21), "20x20 and 21x20"),
        (torch.rand(2, 3, 20, 20), torch.rand(3, 3, 20, 20), "2 pictures and 3 following"),
        (torch.rand(2, 3, 20, 20), torch.rand(0, 3, 20, 20), "empty"),
    ],
)
def test_what_is_refused(images, following, expected):
    with pytest.raises(HintError, match=expected):
        flow_hint(images, following, FlowSettings())
