"""Shuffle: every seed a warp for good, seed 0 too."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.shuffle import ShuffleSettings, shuffle, warp
from scipy.ndimage import map_coordinates

SEEDS = (0, 1, 2**64 - 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_a_warp(photos, seed):
    settings = ShuffleSettings(seed=seed)
    assert torch.equal(shuffle(photos, settings), shuffle(photos, settings))
    assert (shuffle(photos, settings) - photos).abs().mean() > 0.05
    others = [shuffle(photos, ShuffleSettings(seed=other)) for other in SEEDS if other != seed]
    assert not any(torch.equal(shuffle(photos, settings), other) for other in others)


def test_per_frame_and_for_all(photos):
    pair = photos[:1].repeat(2, 1, 1, 1)
    same, other = shuffle(pair, ShuffleSettings()), shuffle(pair, ShuffleSettings(per_frame=True))
    assert torch.equal(same[0], same[1]) and not torch.equal(other[0], other[1])
    assert torch.equal(same[0], other[0])


def test_warps_reach_from_border_to_border_and_are_smooth():
    for axis, size in zip(warp(np.random.default_rng([0, 0]), 300, 400), (400, 300), strict=True):
        assert axis.shape == (300, 400) and axis.min() == 0 and axis.max() == pytest.approx(size - 1)
        assert max(np.abs(np.diff(axis, axis=0)).max(), np.abs(np.diff(axis, axis=1)).max()) < 10


def test_it_is_a_linear_look_up(photos, frame):
    x, y = warp(np.random.default_rng([7, 0]), *frame.shape[:2])
    expected = np.stack([map_coordinates(frame[..., c], [y, x], order=1) for c in range(3)])
    got = shuffle(photos[:1], ShuffleSettings(seed=7))[0].numpy()
    assert np.abs(got - expected).max() < 0.05 and np.abs(got - expected).mean() < 0.005  # 1/32 pixel in OpenCV
