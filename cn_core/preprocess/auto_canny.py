"""Canny edges with thresholds from the picture itself, so that one setting serves dark, flat and busy pictures.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_8bit, strongest
from .settings import Settings, between

STEEPEST = 2 * 4 * 255
"""Largest |dx| + |dy| of the Sobel gradients of 8-bit pictures."""
NOISE = 16
"""A gradient that is an edge is steeper than this; else the noise of flat pictures would be drawn."""


@dataclass(frozen=True, kw_only=True)
class AutoCannySettings(Settings):
    """How many edges there shall be."""

    edge_share: float = field(
        default=0.1,
        metadata=between(
            0.01, 0.5, "Share of the pixels whose gradient is steep enough to start an edge; more draws more edges."
        ),
    )
    low_ratio: float = field(
        default=0.4,
        metadata=between(0.05, 1.0, "How weak an edge may become before it ends, as a part of what starts one."),
    )


def auto_canny(images: Tensor, settings: AutoCannySettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on edges and 0 elsewhere."""
    return each_8bit(images, lambda image: auto_canny_edges(image, settings))


def auto_canny_edges(image: Frame, settings: AutoCannySettings) -> Frame:
    """H W 3 uint8 RGB -> H W uint8. The high threshold is a quantile of the gradient, as in MATLAB's edge."""
    import cv2

    dx = cv2.Sobel(image, cv2.CV_16S, 1, 0, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(image, cv2.CV_16S, 0, 1, borderType=cv2.BORDER_REPLICATE)
    steepness = strongest(np.abs(dx) + np.abs(dy)).view(np.uint16)
    counts = cv2.calcHist([steepness], [0], None, [STEEPEST + 1], [0, STEEPEST + 1]).ravel()
    quantile = np.searchsorted(np.cumsum(counts, dtype=np.float64), (1 - settings.edge_share) * steepness.size)
    high = max(int(quantile), NOISE)
    return cv2.Canny(dx, dy, int(settings.low_ratio * high), high)
