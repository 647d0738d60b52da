"""Which way red and green of a normal map run: only one of both ways makes a surface. Shapes: H W pixels."""

from __future__ import annotations

import numpy as np

from .frames import Frame

STEEP = 0.35
"""Normals that lie flatter than this towards the viewer are at outlines, where there is no surface to follow."""
DECIDED = 1.3
"""By how much the wrong way's error has to exceed the right one's."""
LEAST = 1e-3
"""A twist of less is none: planes and cylinders along an axis fit both ways."""


def flipped_axis(picture: Frame) -> bool:
    """Whether H W 3 in [0, 1] has OpenGL's handedness (red right, green up), not ControlNet's (red left, green up).

    Of a surface z(x, y) with slopes p = dz/dx and q = dz/dy, dp/dy = dq/dx; with one axis the wrong way they are
    opposite. Both axes the wrong way cannot be told: the surface is then hollow. Undecided maps count as right.
    """
    import cv2

    normals = 2 * cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0) - 1
    surface = normals[..., 2] > STEEP
    depth = np.where(surface, normals[..., 2], 1)
    left, up = normals[..., 0] / depth, normals[..., 1] / depth
    # n ~ (-dz/dx to the right, -dz/dy upwards, 1), z to the viewer, rows downwards: with red left, left = dz/dx and
    # up = dz/drow, so that the rows' change of `left` is the columns' change of `up`.
    down: Frame = cv2.Scharr(left, cv2.CV_32F, 0, 1, scale=1 / 32)
    right: Frame = cv2.Scharr(up, cv2.CV_32F, 1, 0, scale=1 / 32)
    inner = cv2.erode(surface.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.bool_)
    if not inner.any():
        return False
    # Small twists are noise, large ones outlines: the middle is left.
    twist = np.abs(down) + np.abs(right)
    usable = inner & (twist > LEAST) & (twist <= np.quantile(twist[inner], 0.95))
    if not usable.any():
        return False
    as_controlnet = np.abs(down - right)[usable].mean()
    as_opengl = np.abs(down + right)[usable].mean()
    return bool(as_controlnet > DECIDED * as_opengl)
