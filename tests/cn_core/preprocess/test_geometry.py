"""Hints of geometry: planes and a sphere seen by a pinhole camera."""

import math

import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.geometry import (
    GeometryDepthSettings,
    GeometryNormalSettings,
    depth_hint,
    normal_hint,
    normals_of,
    points_of,
)

CAMERA = torch.tensor([[[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]]])
ALL = GeometryDepthSettings(percentile=100.0)


def test_depth_is_linear_in_one_over_distance():
    distance = torch.linspace(2, 10, 48 * 64).view(1, 48, 64)
    hint = depth_hint(distance, torch.ones_like(distance, dtype=torch.bool), ALL)
    expected = (1 / distance - 1 / 10) / (1 / 2 - 1 / 10)
    torch.testing.assert_close(hint, expected[:, None].expand(-1, 3, -1, -1), rtol=0, atol=1e-5)
    linear = depth_hint(distance, distance > 0, GeometryDepthSettings(measure="distance", percentile=100.0))
    torch.testing.assert_close(linear[:, 0], (10 - distance) / 8, rtol=0, atol=1e-5)
    assert len(hint.unique()) > 3000


def test_one_range_for_all_frames():
    distance = torch.stack([torch.full((4, 4), 2.0), torch.full((4, 4), 4.0), torch.full((4, 4), 8.0)])
    hint = depth_hint(distance, distance > 0, ALL)
    torch.testing.assert_close(hint[:, 0, 0, 0], torch.tensor([1.0, 1 / 3, 0.0]))


def test_unknown_is_black_and_nothing_known_an_error():
    distance = torch.rand(1, 8, 8) + 1
    distance[:, 0], distance[:, 1], distance[:, 2] = math.inf, math.nan, -1
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 3] = False
    hint = depth_hint(distance, valid, ALL)
    assert (hint[:, :, :4] == 0).all() and hint[:, :, 4:].amax() == 1 and hint.isfinite().all()
    with pytest.raises(HintError, match="No pixel"):
        depth_hint(distance, torch.zeros_like(valid), ALL)


def test_normals_of_a_tilted_plane():
    wanted = F.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)  # x right, y down, to the camera
    rays = points_of(torch.ones(1, 48, 64), CAMERA)
    distance = -4 / (rays @ wanted)  # where n p = -4
    normals = normals_of(points_of(distance, CAMERA))
    torch.testing.assert_close(normals, wanted.expand_as(normals), rtol=0, atol=1e-3)


def test_colours_of_normals():
    normals = F.normalize(
        torch.tensor([[[[1.0, 0, -1], [0, 1.0, -1], [0, 0, -1.0], [0, 0, 0], [math.inf, 0, 0]]]]), dim=-1
    )
    side = 0.5 + math.sqrt(0.125)
    net, gl, dx = (
        normal_hint(normals, GeometryNormalSettings(convention=name))[0, :, 0]
        for name in ("ControlNet", "OpenGL", "DirectX")
    )
    facing = torch.tensor([0.5, 0.5, 1.0])
    for hint in (net, gl, dx):
        torch.testing.assert_close(hint[:, 2:], facing[:, None].expand(-1, 3))
    torch.testing.assert_close(gl[:, 0], torch.tensor([side, 0.5, side]))  # faces right
    torch.testing.assert_close(net[:, 0], torch.tensor([1 - side, 0.5, side]))
    torch.testing.assert_close(gl[:, 1], torch.tensor([0.5, 1 - side, side]))  # faces down
    torch.testing.assert_close(dx[:, 1], torch.tensor([0.5, side, side]))


def test_points_that_are_not_finite_have_no_normal():
    points = points_of(torch.full((1, 48, 64), 3.0), CAMERA)
    points[:, 10, 10] = math.inf
    normals = normals_of(points)
    assert (normals[:, 10, 9] == 0).all() and normals.isfinite().all()
    assert ((normals.norm(dim=-1) - 1).abs() < 1e-4).float().mean() > 0.99
