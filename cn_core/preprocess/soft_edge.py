"""Soft edges without a network: gradients at several scales, which make the outlines of things brighter than texture.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_frame, strongest
from .settings import Settings, between

SCHARR = 32
"""Sum of the positive half of the kernel, times two pixels."""
NOISE = 0.02
"""The gradient that becomes white is at least this steep; else the noise of flat pictures would."""


@dataclass(frozen=True, kw_only=True)
class SoftEdgeSettings(Settings):
    """How soft and how bright."""

    scales: int = field(
        default=3,
        metadata=between(1, 5, "How many, each twice as coarse as the one before; more brings out large outlines."),
    )
    white_percentile: float = field(
        default=98.0,
        metadata=between(
            50.0,
            100.0,
            "Share of the pixels in percent that are darker than white; less makes all edges brighter.",
            step=0.1,
        ),
    )
    safe_steps: int = field(
        default=0,
        metadata=between(0, 10, "Number of grey levels above black, against hidden detail; 0: as many as there are."),
    )


def soft_edge(images: Tensor, settings: SoftEdgeSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, white soft edges on black."""
    return each_frame(images, lambda frame: soft_edges(frame, settings))


def soft_edges(frame: Frame, settings: SoftEdgeSettings) -> Frame:
    """H W 3 float32 -> H W float32 from 0: the mean over scales of sigma * |gradient|, strongest channel.

    sigma = 1, 2, 4, ...: the gradients are normalised by scale (Lindeberg 1998) and taken with Scharr's kernels.
    """
    import cv2

    total, sigma = np.zeros_like(frame), 0.0
    for level in range(settings.scales):
        sigma, before = float(2**level), sigma
        frame = cv2.GaussianBlur(frame, (0, 0), math.sqrt(sigma**2 - before**2))
        dx, dy = (cv2.Scharr(frame, cv2.CV_32F, *axis, scale=sigma / SCHARR) for axis in ((1, 0), (0, 1)))
        total += np.sqrt(dx * dx + dy * dy)  # cv2.magnitude's last bit depends on where in memory they are
    edges = strongest(total)
    place = round(settings.white_percentile / 100 * (edges.size - 1))
    white = max(float(np.partition(edges, place, axis=None)[place]), NOISE * settings.scales)
    return safe(edges / white, settings.safe_steps)


def safe(edges: Frame, steps: int) -> Frame:
    """H W float32 -> the same in `steps` levels above 0, as HED's safe mode has 2: floor(x (s + 1)) / s."""
    return np.floor(edges * (steps + 1)) / steps if steps else edges
