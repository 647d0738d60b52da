"""Straight lines as a wireframe, such as M-LSD's hints: white on black.

Shapes: B batch, H W pixels, N lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from .frames import Frame, each_8bit
from .settings import Settings, between, one_of

Method = Literal["LSD", "Hough"]
CANNY = (50, 150)
GAP_PX = 3


@dataclass(frozen=True, kw_only=True)
class StraightLinesSettings(Settings):
    """How they are found and drawn."""

    method: Method = field(
        default="LSD",
        metadata=one_of(
            get_args(Method), "LSD: along gradients, exact. Hough: through Canny edges, bridges small gaps."
        ),
    )
    min_length: int = field(default=16, metadata=between(1, 1024, "Shorter lines are left out, in pixels."))
    thickness: int = field(default=1, metadata=between(1, 16, "Of the drawn lines, in pixels."))


def straight_lines(images: Tensor, settings: StraightLinesSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on lines and 0 elsewhere. No line at all makes a black hint."""
    return each_8bit(images, lambda image: wireframe(image, settings))


def wireframe(image: Frame, settings: StraightLinesSettings) -> Frame:
    """H W 3 uint8 -> H W uint8."""
    import cv2

    canvas = np.zeros(image.shape[:2], np.uint8)
    lines = find(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), settings)
    long = np.hypot(*(lines[:, 2:] - lines[:, :2]).T) >= settings.min_length
    ends = np.rint(lines[long]).astype(np.int32).reshape(-1, 2, 2)
    return cv2.polylines(canvas, list(ends), False, 255, settings.thickness)


def find(grey: Frame, settings: StraightLinesSettings) -> Frame:
    """H W uint8 -> N 4 (x, y of either end), in pixels: LSD (von Gioi 2010) or probabilistic Hough (Matas 2000)."""
    import cv2

    if settings.method == "LSD":
        found = cv2.createLineSegmentDetector().detect(grey)[0]
    else:
        votes, length = max(settings.min_length, 8), settings.min_length
        found = cv2.HoughLinesP(cv2.Canny(grey, *CANNY), 1, np.pi / 180, votes, minLineLength=length, maxLineGap=GAP_PX)
    return np.zeros((0, 4), np.float32) if found is None else found.reshape(-1, 4).astype(np.float32)
