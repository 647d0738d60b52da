"""Depth maps of triangles, with a z-buffer.

Shapes: T triangles, H W pixels.
"""

from __future__ import annotations

import numpy as np

from ..frames import Frame
from .litert import Values

FLAT = 1e-6
"""Pixels: triangles of a smaller area are seen from their edge."""


def fill(canvas: Frame, corners: Values) -> None:
    """H W float32, T 3 3 (x and y in pixels from the top left corner, level) -> the highest at each pixel, in place.

    A pixel belongs to the triangles that its middle is in, with their borders.
    """
    height, width = canvas.shape
    for triangle in corners:
        low = np.ceil(triangle[:, :2].min(axis=0) - 0.5).clip(0).astype(int)
        high = (np.floor(triangle[:, :2].max(axis=0) - 0.5) + 1).clip(0, (width, height)).astype(int)
        (x0, y0), (x1, y1), (x2, y2) = triangle[:, :2].tolist()
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if (low >= high).any() or abs(area) < FLAT:
            continue
        x = np.arange(low[0], high[0])[None] + 0.5
        y = np.arange(low[1], high[1])[:, None] + 0.5
        second = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area  # barycentric coordinates
        third = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
        first = 1 - second - third
        inside = (first >= 0) & (second >= 0) & (third >= 0)
        level = first * triangle[0, 2] + second * triangle[1, 2] + third * triangle[2, 2]
        part = canvas[low[1] : high[1], low[0] : high[0]]
        np.maximum(part, np.where(inside, level, 0), out=part, casting="same_kind")
