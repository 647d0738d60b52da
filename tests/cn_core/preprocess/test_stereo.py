"""Stereo depth: a pair with measured disparities, and one whose disparities are known by construction."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.flow import grey
from controlnet_kit.cn_core.preprocess.stereo import StereoSettings, disparity, filled, stereo_depth
from scipy.stats import spearmanr
from skimage import data
from skimage.transform import resize
from torch import Tensor


def motorcycle() -> tuple[Tensor, Tensor, np.ndarray]:
    """Middlebury's, at a third of its size: (left, right, disparity in pixels, infinite where unknown)."""
    left, right, truth = data.stereo_motorcycle()
    small = [np.asarray(resize(side, (168, 248), anti_aliasing=True), np.float32) for side in (left, right)]
    first, second = (torch.from_numpy(side).movedim(-1, 0)[None] for side in small)
    return first, second, truth[::3, ::3][:166, :247] / 3


@pytest.mark.parametrize(("method", "rank"), [("SGBM", 0.9), ("flow", 0.85)])
def test_the_motorcycle(method, rank):
    left, right, truth = motorcycle()
    depth, found = stereo_depth(left, right, StereoSettings(method=method, max_disparity=32))
    got, known = depth[0, 0, :166, :247].numpy(), np.isfinite(truth)
    assert spearmanr(got[known], truth[known])[0] > rank
    assert found.mean() > 0.8 and depth.amin() == 0 and depth.amax() == 1


@pytest.mark.parametrize("method", ["SGBM", "flow"])
def test_a_square_in_front_of_a_wall(method):
    noise = torch.rand(1, 3, 80, 120, generator=torch.Generator().manual_seed(7))
    wall = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    left, right = wall.roll(4, 3), wall.clone()
    left[..., 20:60, 48:88], right[..., 20:60, 36:76] = (wall.flip(2)[..., 20:60, 40:80],) * 2
    found = disparity(grey(left[0]), grey(right[0]), StereoSettings(method=method, max_disparity=32))
    assert np.nanmedian(found[30:50, 58:78]) == pytest.approx(12, abs=0.3)
    assert np.nanmedian(found[5:15, 20:100]) == pytest.approx(4, abs=0.3)
    depth, mask = stereo_depth(left, right, StereoSettings(method=method, max_disparity=32, percentile=100.0))
    assert depth[0, 0, 40, 68] > depth[0, 0, 10, 68] + 0.3 and mask.shape == (1, 80, 120)


def test_holes_take_the_farther_neighbour():
    nan = np.nan
    found = np.array([[nan, 2, nan, nan, 5, nan], [nan] * 6], np.float32)
    assert filled(found).tolist() == [[2, 2, 2, 2, 5, 5], [0] * 6]


@pytest.mark.parametrize("method", ["SGBM", "flow"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 20), (300, 10), (10, 300)])
def test_sizes_batches_and_broken_settings(method, size):
    settings = StereoSettings(method=method, max_disparity=40, block=4)  # neither a multiple of 16 nor odd
    depth, found = stereo_depth(torch.rand(3, 3, *size), torch.rand(1, 3, *size), settings)
    assert depth.shape == (3, 3, *size) and found.shape == (3, *size)
    assert depth.isfinite().all() and depth.amin() >= 0 and depth.amax() <= 1


def test_sizes_that_differ_are_refused():
    with pytest.raises(HintError, match="left picture is 9x8 and the right one 10x8"):
        stereo_depth(torch.rand(1, 3, 8, 9), torch.rand(1, 3, 8, 10), StereoSettings())
