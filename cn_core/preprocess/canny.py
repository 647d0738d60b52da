"""Canny edges: thin white lines on black (Canny 1986, OpenCV's implementation).

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .frames import Frame, each_8bit
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class CannySettings(Settings):
    """Hysteresis thresholds on the gradient of 8-bit pictures."""

    low_threshold: int = field(
        default=100, metadata=between(0, 255, "How weak an edge may become before it ends; lower keeps more of it.")
    )
    high_threshold: int = field(
        default=200,
        metadata=between(0, 255, "How strong an edge must be somewhere to be drawn at all; lower draws more edges."),
    )


def canny_edges(image: Frame, settings: CannySettings) -> Frame:
    """H W 3 uint8 RGB -> H W uint8, 255 on edges and 0 elsewhere."""
    import cv2

    return cv2.Canny(image, settings.low_threshold, settings.high_threshold)


def canny(images: Tensor, settings: CannySettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on edges and 0 elsewhere, on the device it came from."""
    return each_8bit(images, lambda image: canny_edges(image, settings))
