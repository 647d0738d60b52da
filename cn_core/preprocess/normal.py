"""Surface normals as colours, from depth maps.

Shapes: B batch, H W pixels. Axes of a normal: x to the right, y up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from .frames import Frame, each_frame
from .settings import Settings, between, one_of

Convention = Literal["ControlNet", "OpenGL", "DirectX"]
SIGNS: dict[str, tuple[int, int, int]] = {"ControlNet": (-1, 1, 1), "OpenGL": (1, 1, 1), "DirectX": (1, -1, 1)}
"""Which way red, green and blue point: ControlNet 1.1's normalbae has red left, green up and blue front."""
CONVENTION_TIP = "ControlNet: red left, green up, as normalbae. OpenGL: red right, green up. DirectX: green down."


@dataclass(frozen=True, kw_only=True)
class NormalSettings(Settings):
    """How deep the scene is, and how its normals are coloured."""

    relief: float = field(
        default=0.5,
        metadata=between(
            0.01, 10.0, "Depth of the scene from black to white, in short sides of the picture; more is steeper."
        ),
    )
    convention: Convention = field(default="ControlNet", metadata=one_of(get_args(Convention), CONVENTION_TIP))
    smooth: float = field(
        default=0.0, metadata=between(0.0, 20.0, "Blur of the depth in pixels, against steps and noise.", step=0.1)
    )
    background: float = field(default=0.0, metadata=between(0.0, 1.0, "What is darker than this faces the viewer."))


def normal_from_depth(images: Tensor, settings: NormalSettings) -> Tensor:
    """B 3 H W in [0, 1], near is white -> B 3 H W: (n + 1) / 2."""
    return each_frame(images, lambda frame: normals(frame, settings))


def normals(frame: Frame, settings: NormalSettings) -> Frame:
    """H W 3 float32 -> H W 3 float32, coloured: (-dz/dx, dz/dy, 1) of z in pixels at unit length, y running up."""
    import cv2

    depth = cv2.transform(frame, np.full((1, 3), 1 / 3))
    background = depth < settings.background
    if settings.smooth:
        depth = cv2.GaussianBlur(depth, (0, 0), settings.smooth)
    height = settings.relief * min(depth.shape) / 8  # 8: what Sobel's kernel makes of a slope of 1
    right: Frame = cv2.Sobel(depth, cv2.CV_32F, 1, 0, scale=-height)
    up: Frame = cv2.Sobel(depth, cv2.CV_32F, 0, 1, scale=height)
    right[background] = up[background] = 0
    length: Frame = cv2.sqrt(right * right + up * up + 1)
    axes = (right / length, up / length, 1 / length)
    return cv2.merge([axis * (sign / 2) + 0.5 for axis, sign in zip(axes, SIGNS[settings.convention], strict=True)])
