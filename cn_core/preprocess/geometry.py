"""Hints from metric geometry, such as ComfyUI's Depth Anything 3 and MoGe give: distances, points, normals.

Shapes: B batch, H W pixels. The camera's axes: x to the right, y down, z forward (OpenCV's).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import HintError
from .normal import CONVENTION_TIP, SIGNS, Convention
from .settings import Settings, between, one_of

Measure = Literal["1 / distance", "distance"]


@dataclass(frozen=True, kw_only=True)
class GeometryDepthSettings(Settings):
    """How distances become grey."""

    measure: Measure = field(
        default="1 / distance",
        metadata=one_of(get_args(Measure), "What grey is linear in. 1 / distance is what depth ControlNets know."),
    )
    percentile: float = field(
        default=99.9,
        metadata=between(
            51.0, 100.0, "What is nearer than so many percent of all pixels is white; so for black.", step=0.1
        ),
    )


@dataclass(frozen=True, kw_only=True)
class GeometryNormalSettings(Settings):
    """How normals become colours."""

    convention: Convention = field(default="ControlNet", metadata=one_of(get_args(Convention), CONVENTION_TIP))


def depth_hint(distance: Tensor, valid: Tensor, settings: GeometryDepthSettings) -> Tensor:
    """B H W in any unit, larger is farther, and B H W bool -> B 3 H W float32 in [0, 1], near is white.

    The range is that of all valid pixels of the batch; all others are black. Raises HintError if none is valid.
    """
    valid = valid & distance.isfinite() & (distance > 0)
    if not valid.any():
        raise HintError(
            "No pixel of the geometry has a distance: all are sky, masked or infinite. Look at the node before."
        )
    known = distance[valid].float()
    nearness = 1 / known if settings.measure == "1 / distance" else -known
    levels = torch.zeros(distance.shape, device=distance.device)
    low, high = np.percentile(nearness.cpu().numpy(), (100 - settings.percentile, settings.percentile)).tolist()
    levels[valid] = ((nearness - low) / ((high - low) or 1)).clamp(0, 1)
    return levels[:, None].repeat(1, 3, 1, 1)


def normal_hint(normals: Tensor, settings: GeometryNormalSettings) -> Tensor:
    """B H W 3 on the camera's axes, pointing to the camera -> B 3 H W float32 in [0, 1]; where there is none, the
    colour of what faces the viewer."""
    facing = normals.new_tensor([0.0, 0.0, -1.0])
    known = normals.isfinite().all(dim=-1, keepdim=True) & (normals != 0).any(dim=-1, keepdim=True)
    x, y, z = F.normalize(torch.where(known, normals, facing).float(), dim=-1).unbind(-1)
    signs = SIGNS[settings.convention]
    return torch.stack([x * signs[0], -y * signs[1], -z * signs[2]], dim=1) / 2 + 0.5


def normals_of(points: Tensor) -> Tensor:
    """B H W 3 -> B H W 3 of length 1, pointing to the camera; 0 where a neighbour is not finite.

    The cross product of the differences to the neighbours below and beside, central inside the picture.
    """
    grid = points.movedim(-1, 1)
    padded = F.pad(grid, (1, 1, 1, 1), mode="replicate")
    beside = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    below = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    found = F.normalize(torch.linalg.cross(below, beside, dim=1), dim=1).movedim(1, -1)
    return torch.where(found.isfinite().all(dim=-1, keepdim=True), found, 0.0)


def points_of(distance: Tensor, intrinsics: Tensor) -> Tensor:
    """B H W along z and B 3 3 in pixels -> B H W 3."""
    height, width = distance.shape[1:]
    rows, columns = (torch.arange(extent, dtype=torch.float32, device=distance.device) for extent in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    rays = torch.einsum("bij,hwj->bhwi", intrinsics.float().inverse(), torch.stack([x, y, torch.ones_like(x)], dim=-1))
    return rays * distance[..., None]
