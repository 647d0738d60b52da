"""A scribble from the difference of two Gaussians (Winnemöller 2011): white strokes on black.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .frames import Frame, each_frame, weakest
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class XDoGSettings(Settings):
    """As sd-webui-controlnet's scribble_xdog, whose two blurs are fixed."""

    threshold: int = field(
        default=32, metadata=between(1, 64, "How much darker than its surroundings a stroke is; lower draws more.")
    )
    sigma: float = field(
        default=0.5, metadata=between(0.1, 10.0, "Blur of the strokes in pixels; more leaves out fine detail.")
    )
    surroundings: float = field(
        default=5.0, metadata=between(0.5, 50.0, "Blur of the surroundings in pixels; more makes strokes wider.")
    )


def xdog(images: Tensor, settings: XDoGSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on strokes and 0 elsewhere."""
    return each_frame(images, lambda frame: strokes(frame, settings))


def strokes(frame: Frame, settings: XDoGSettings) -> Frame:
    """H W 3 float32 -> H W float32: 1 where 2 * 255 * min over channels of (wide - narrow) is above the threshold."""
    import cv2

    narrow = cv2.GaussianBlur(frame, (0, 0), settings.sigma)
    wide = cv2.GaussianBlur(frame, (0, 0), settings.surroundings)
    return cv2.threshold(weakest(cv2.subtract(wide, narrow)), settings.threshold / 510, 1, cv2.THRESH_BINARY)[1]
