"""Hints of the host's geometry types, in the forms that its nodes give them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from comfy_extras.nodes_moge import MoGeRender
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.nodes.preprocess_geometry import GEOMETRY_NODES, PreprocessGeometryDepth, PreprocessGeometryNormal
from random_models import run
from torch import Tensor


def moge(**parts: Tensor) -> dict[str, Any]:
    """MOGE_GEOMETRY of a tilted plane with a hole, two frames of 24 32; where it is masked, depth is infinite."""
    y, x = torch.meshgrid(torch.linspace(-0.3, 0.3, 24), torch.linspace(-0.4, 0.4, 32), indexing="ij")
    depth = torch.stack([2 / (1 - 0.5 * x + 0.2 * y), 4 / (1 - 0.5 * x + 0.2 * y)])
    mask = torch.ones(2, 24, 32, dtype=torch.bool)
    mask[:, 5:9, 7:12] = False
    depth[~mask] = math.inf
    points = torch.stack([x * depth, y * depth, depth], dim=-1)
    return {"depth": depth, "points": points, "mask": mask, "image": torch.zeros(2, 24, 32, 3), **parts}


@pytest.mark.parametrize("node", GEOMETRY_NODES)
def test_schemas(node: Any):
    schema = node.GET_SCHEMA()
    schema.validate()
    assert schema.node_id == node.__name__
    assert node.INPUT_TYPES()["required"]["geometry"][0] == "MOGE_GEOMETRY,DA3_GEOMETRY"
    assert all(field.tooltip for field in schema.inputs)


def depth(geometry: dict[str, Any], measure: str = "1 / distance") -> tuple[Tensor, Tensor]:
    return run(PreprocessGeometryDepth, geometry=geometry, measure=measure, percentile=100.0)


def test_depth_of_moge_has_one_range_for_all_frames():
    geometry = moge()
    hint, known = depth(geometry)
    assert hint.shape == (2, 24, 32, 3) and torch.equal(known.bool(), geometry["mask"])
    nearness = 1 / geometry["depth"]
    low, high = nearness[geometry["mask"]].aminmax()
    expected = torch.where(geometry["mask"], (nearness - low) / (high - low), 0)
    torch.testing.assert_close(hint[..., 0], expected, rtol=0, atol=1e-5)
    assert hint[0].amax() == 1 and hint[1].amax() < 0.6  # the host's own rendering would flicker here


def test_sky_of_depth_anything_is_black():
    sky = torch.zeros(2, 24, 32)
    sky[:, :6] = 0.9
    geometry = {"depth": moge()["depth"].nan_to_num(posinf=3.0), "sky": sky, "mode": "mono"}
    hint, known = depth(geometry, "distance")
    assert (hint[:, :6] == 0).all() and (known[:, :6] == 0).all() and known[:, 6:].all()


def normal(geometry: dict[str, Any], convention: str = "OpenGL") -> Tensor:
    return run(PreprocessGeometryNormal, geometry=geometry, convention=convention)[0]


@pytest.mark.parametrize(("convention", "output"), [("OpenGL", "normal_opengl"), ("DirectX", "normal_directx")])
def test_normals_are_the_hosts(convention, output):
    theirs = run(MoGeRender, moge_geometry=moge(), output=output)[0]
    ours = normal(moge(), convention)
    inside = torch.zeros(24, 32, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    inside[4:10, 6:13] = False
    torch.testing.assert_close(ours[:, inside], theirs[:, inside], rtol=0, atol=1e-3)
    given = moge(normal=torch.nn.functional.normalize(torch.randn(2, 24, 32, 3), dim=-1))
    theirs = run(MoGeRender, moge_geometry=given, output=output)[0]
    torch.testing.assert_close(normal(given, convention), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", [(24, 32), (112, 140)])
def test_normals_of_depth_anything_with_several_views(network: tuple[int, int]):
    """Its intrinsics are in pixels of what its network sees."""
    height, width = network
    points = moge()
    intrinsics = torch.tensor(
        [[width * 31 / 32 / 0.8, 0, width / 2], [0, height * 23 / 24 / 0.6, height / 2], [0, 0, 1]]
    )
    views = {"depth": points["depth"], "intrinsics": intrinsics.expand(1, 2, 3, 3)}
    inside = points["mask"] & points["mask"].roll(1, 1) & points["mask"].roll(-1, 2)
    torch.testing.assert_close(normal(views)[inside], normal(points)[inside], rtol=0, atol=0.01)


def test_normals_of_moges_intrinsics_alone():
    """They are shares of the sides."""
    points = moge()
    intrinsics = torch.tensor([[31 / 32 / 0.8, 0, 0.5], [0, 23 / 24 / 0.6, 0.5], [0, 0, 1]]).expand(2, 3, 3)
    found = normal({"depth": points["depth"], "intrinsics": intrinsics})
    torch.testing.assert_close(found, normal(points), rtol=0, atol=0.01)


def test_what_a_geometry_lacks_is_said():
    with pytest.raises(HintError, match="no depth, only image, points"):
        depth({"points": torch.zeros(1, 4, 4, 3), "image": torch.zeros(1, 4, 4, 3)})
    with pytest.raises(HintError, match="neither normals nor points"):
        normal({"depth": torch.ones(1, 4, 4)})
    with pytest.raises(HintError, match="neither normals nor points"):
        normal({"depth": torch.ones(1, 4, 4), "intrinsics": torch.eye(3)[None, None]})
    with pytest.raises(HintError, match="No pixel"):
        depth({"depth": torch.full((1, 4, 4), math.inf)})
