"""Line art without a network: how much darker than its blurred surroundings a pixel is, evened out.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_frame, weakest
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class LineartSettings(Settings):
    """As sd-webui-controlnet's lineart_standard, where both are fixed."""

    gaussian_sigma: float = field(
        default=6.0, metadata=between(0.1, 100.0, "Blur of the surroundings in pixels; more makes lines wider.")
    )
    intensity_threshold: int = field(
        default=8,
        metadata=between(0, 16, "Fainter lines do not count for the evening out; higher makes faint lines fainter."),
    )


def lineart(images: Tensor, settings: LineartSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, white soft lines on black."""
    return each_frame(images, lambda frame: lines(frame, settings))


def lines(frame: Frame, settings: LineartSettings) -> Frame:
    """H W 3 float32 -> H W float32.

    In levels of 0 to 255, i = max(min over channels of (blurred - x), 0) and
    out = 127 i / max(16, median of i above the threshold).
    """
    import cv2

    blurred = cv2.GaussianBlur(frame, (0, 0), settings.gaussian_sigma)
    intensity = np.maximum(weakest(cv2.subtract(blurred, frame)), 0)
    strong = intensity[intensity > settings.intensity_threshold / 255]
    median = float(np.median(strong)) if strong.size else 0.0
    return intensity * (127 / 255 / max(16 / 255, median))
