"""Does a picture follow its hint? Scores from running the preprocessor again on the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .canny import CannySettings, canny_edges


@dataclass(frozen=True, kw_only=True)
class EdgeScores:
    """How the edges of a picture and those of its hint agree, each 0 (nowhere) to 1 (everywhere)."""

    precision: float
    """Share of the picture's edge pixels that have a hint edge nearby."""
    recall: float
    """Share of the hint's edge pixels that have an edge of the picture nearby."""
    f1: float
    """Harmonic mean of the two."""


def edge_scores(
    image: np.ndarray, hint: np.ndarray, *, tolerance_px: int = 2, settings: CannySettings | None = None
) -> EdgeScores:
    """Compare the Canny edges of `image` (H W 3 uint8 RGB) with `hint` (H W uint8, edges above 127).

    Pixels match when they are at most `tolerance_px` apart (Euclidean). No edges on either side is a perfect match.
    """
    edges = canny_edges(image, settings or CannySettings()) > 127
    wanted = hint > 127
    if not edges.any() and not wanted.any():
        return EdgeScores(precision=1.0, recall=1.0, f1=1.0)
    precision = _share_near(edges, wanted, tolerance_px)
    recall = _share_near(wanted, edges, tolerance_px)
    total = precision + recall
    return EdgeScores(precision=precision, recall=recall, f1=2 * precision * recall / total if total else 0.0)


def _share_near(points: np.ndarray, others: np.ndarray, tolerance_px: int) -> float:
    """Share of `points` with one of `others` within the tolerance; both are H W bool."""
    if not points.any() or not others.any():
        return 0.0
    distance = cv2.distanceTransform(np.where(others, 0, 255).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[points] <= tolerance_px).mean())
