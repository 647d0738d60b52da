"""Normals: those of planes and of a sphere, whose normals are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.preprocess.normal import NormalSettings, normal_from_depth
from torch import Tensor


def decoded(hint: Tensor) -> Tensor:
    """B 3 H W of OpenGL's colours -> normals."""
    return hint * 2 - 1


def test_a_plane_that_rises_to_the_right_and_upwards():
    y, x = torch.meshgrid(torch.arange(40) / 40, torch.arange(60) / 40, indexing="ij")
    depth = (0.2 + 0.3 * x - 0.15 * y).expand(1, 3, -1, -1)  # y runs down
    normals = decoded(normal_from_depth(depth, NormalSettings(relief=1.0, convention="OpenGL")))
    expected = F.normalize(torch.tensor([-0.3, -0.15, 1.0]), dim=0)
    inner = normals[0, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, expected[:, None, None].expand_as(inner), rtol=0, atol=1e-4)


def sphere(size: int) -> tuple[Tensor, Tensor]:
    """(depth 1 3 size size of a ball's front, its normals)."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    front = (1 - x**2 - y**2).clamp(min=0).sqrt()
    return front.expand(1, 3, -1, -1), torch.stack([x, -y, front])


@pytest.mark.parametrize("size", [128, 256])
def test_a_sphere_at_any_resolution(size):
    depth, expected = sphere(size)
    normals = decoded(normal_from_depth(depth, NormalSettings(relief=0.5, convention="OpenGL")))[0]
    inside = expected[2] > 0.4
    degrees = torch.rad2deg((normals * expected).sum(dim=0)[inside].clamp(-1, 1).acos())
    assert degrees.mean() < 1 and degrees.max() < 6


def test_conventions(photos):
    gl, dx, net = (
        normal_from_depth(photos, NormalSettings(convention=name)) for name in ("OpenGL", "DirectX", "ControlNet")
    )
    torch.testing.assert_close(dx, torch.stack([gl[:, 0], 1 - gl[:, 1], gl[:, 2]], dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(net, torch.stack([1 - gl[:, 0], gl[:, 1], gl[:, 2]], dim=1), rtol=0, atol=1e-6)
    left_of_ball = normal_from_depth(sphere(64)[0], NormalSettings())[0, :, 32, 12]
    assert left_of_ball[0] > 0.7  # red is left, as lllyasviel's normalbae


def test_lengths_background_and_smoothing(photos):
    lengths = decoded(normal_from_depth(photos, NormalSettings())).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-5)
    flat = normal_from_depth(photos, NormalSettings(background=1.0, relief=5.0))
    assert (flat[:, 2] == 1).float().mean() > 0.95
    rough, smooth = (
        decoded(normal_from_depth(photos, NormalSettings(smooth=blur)))[:, 2].mean() for blur in (0.0, 3.0)
    )
    assert smooth > rough
    assert math.isclose(float(flat[0, 0, 0, 0]), 0.5)
