"""Hints from the geometry that the host's own nodes find: Depth Anything 3's and MoGe's.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import HintError
from ..cn_core.preprocess.geometry import (
    GeometryDepthSettings,
    GeometryNormalSettings,
    Measure,
    depth_hint,
    normal_hint,
    normals_of,
    points_of,
)
from ..cn_core.preprocess.normal import Convention
from .boundary import to_image
from .forms import widgets
from .generated import category

GEOMETRIES: list[Any] = [io.Custom("MOGE_GEOMETRY"), io.Custom("DA3_GEOMETRY")]
SKY = 0.5
"""From this probability on."""


def geometry_input() -> io.Input:
    """Either kind."""
    return io.MultiType.Input("geometry", types=GEOMETRIES, tooltip="From Run MoGe Inference or Depth Anything 3.")


class PreprocessGeometryDepth(io.ComfyNode):
    """Depth."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="PreprocessGeometryDepth",
            display_name="Depth from Geometry",
            category=category("depth, normals, motion"),
            description="The depth hint of MoGe's or Depth Anything 3's geometry, in floats and with one range for all "
            "frames, so that videos do not flicker.",
            search_aliases=["depth", "MoGe", "Depth Anything", "DA3"],
            inputs=[geometry_input(), *widgets(GeometryDepthSettings)],
            outputs=[
                io.Image.Output(display_name="hint", tooltip="Near is white; sky and what is unknown is black."),
                io.Mask.Output(display_name="known", tooltip="White where there is a distance."),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, geometry: dict[str, Any], measure: Measure, percentile: float
    ) -> io.NodeOutput:
        """As many as the geometry has."""
        distance = part(geometry, "depth").float()
        valid = known(geometry, distance)
        settings = GeometryDepthSettings(measure=measure, percentile=percentile)
        return io.NodeOutput(to_image(depth_hint(distance, valid, settings)), valid.float())


class PreprocessGeometryNormal(io.ComfyNode):
    """Normals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="PreprocessGeometryNormal",
            display_name="Normals from Geometry",
            category=category("depth, normals, motion"),
            description="The normal hint of MoGe's geometry, or of Depth Anything 3's with several views.",
            search_aliases=["normal map", "MoGe", "Depth Anything", "DA3"],
            inputs=[geometry_input(), *widgets(GeometryNormalSettings)],
            outputs=[io.Image.Output(display_name="hint")],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, geometry: dict[str, Any], convention: Convention
    ) -> io.NodeOutput:
        """As many as the geometry has."""
        return io.NodeOutput(to_image(normal_hint(normals(geometry), GeometryNormalSettings(convention=convention))))


def part(geometry: dict[str, Any], name: str) -> Tensor:
    """A tensor of a geometry. Raises HintError if it is not there."""
    if name not in geometry:
        has = ", ".join(sorted(geometry))
        raise HintError(f"The geometry has no {name}, only {has}. Let the node before make it.")
    return geometry[name]


def known(geometry: dict[str, Any], distance: Tensor) -> Tensor:
    """B H W bool: where there is a distance, neither masked nor sky."""
    valid = distance.isfinite() & (distance > 0)
    if "mask" in geometry:
        valid &= geometry["mask"].bool().to(valid.device)
    if "sky" in geometry:
        valid &= (geometry["sky"] < SKY).to(valid.device)
    return valid


def normals(geometry: dict[str, Any]) -> Tensor:
    """B H W 3 on the camera's axes: the model's own, else of its points, else of its depth. Raises HintError."""
    if "normal" in geometry:
        return geometry["normal"]
    if "points" in geometry:
        return normals_of(geometry["points"].float())
    if "intrinsics" not in geometry or not centred(geometry["intrinsics"]):
        raise HintError(
            "The geometry has neither normals nor points, nor intrinsics to find them with. Take MoGe, more views or "
            "Normal from Depth Preprocessor on the depth hint."
        )
    distance = part(geometry, "depth").float()
    return normals_of(points_of(distance, in_pixels(geometry["intrinsics"], distance)))


def centred(intrinsics: Any) -> bool:
    """Whether there is a principal point: the host has an identity matrix where it knows nothing."""
    return bool((torch.as_tensor(intrinsics)[..., :2, 2] > 0).all())


def in_pixels(intrinsics: Any, distance: Tensor) -> Tensor:
    """... 3 3 -> B 3 3 in the pixels of B H W.

    Depth Anything 3's are in those of its network, which sees another size, and MoGe's are shares of the sides. Both
    have the principal point in the middle, so that tells the scale.
    """
    found = torch.as_tensor(intrinsics).reshape(-1, 3, 3).float().to(distance.device)
    sides = found.new_tensor([distance.shape[2], distance.shape[1]])
    scale = torch.ones_like(found[:, :, :1])  # B 3 1
    scale[:, :2, 0] = sides / (2 * found[:, :2, 2])
    return found * scale


GEOMETRY_NODES = (PreprocessGeometryDepth, PreprocessGeometryNormal)
