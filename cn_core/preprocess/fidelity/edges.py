"""How well drawn lines lie on each other: precision, recall and F1 with a tolerance, as in the Berkeley benchmark.

Source: Martin, Fowlkes and Malik 2004, without their one-to-one assignment. Shapes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..canny import CannySettings, canny_edges
from ..frames import Frame

FAINTEST = 0.05
"""Darker than this no pixel of a soft map is a line."""


@dataclass(frozen=True, kw_only=True)
class EdgeScores:
    """How the edges of a picture and those of its hint agree, each 0 (nowhere) to 1 (everywhere)."""

    precision: float
    """Share of the picture's edge pixels that have a hint edge nearby."""
    recall: float
    """Share of the hint's edge pixels that have an edge of the picture nearby."""

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def edge_scores(
    image: Frame, hint: Frame, *, tolerance_px: float = 2, settings: CannySettings | None = None
) -> EdgeScores:
    """Compare the Canny edges of `image` (H W 3 uint8 RGB) with `hint` (H W uint8, edges above 127)."""
    return agreement(canny_edges(image, settings or CannySettings()) > 127, hint > 127, tolerance_px=tolerance_px)


def agreement(found: Frame, wanted: Frame, *, tolerance_px: float = 2) -> EdgeScores:
    """Of H W bool: pixels match when they are at most `tolerance_px` apart (Euclidean).

    No edges on either side is a perfect match.
    """
    if not found.any() and not wanted.any():
        return EdgeScores(precision=1.0, recall=1.0)
    return EdgeScores(precision=share_near(found, wanted, tolerance_px), recall=share_near(wanted, found, tolerance_px))


def share_near(points: Frame, others: Frame, tolerance_px: float) -> float:
    """Share of `points` with one of `others` within the tolerance; 0 if there are none on either side."""
    return float(near(others, tolerance_px)[points].mean()) if points.any() else 0.0


def near(points: Frame, tolerance_px: float) -> Frame:
    """H W bool: at most so far from one of the points (H W bool)."""
    import cv2

    if not points.any():
        return np.zeros_like(points)
    distance = cv2.distanceTransform(np.where(points, 0, 255).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= tolerance_px


def line_level(wanted: Frame) -> float:
    """What is brighter is a line in this map (H W in [0, 1]) and in its like: half of the brightest pixel."""
    return max(float(wanted.max()) / 2, FAINTEST)
