"""A pencil sketch by colour dodge: the picture's brightness over that of its surroundings.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .frames import Frame, each_frame
from .settings import Settings, between

INK = 1 / 16
"""Added to both brightnesses, so that black on black is blank paper and the noise of dark places is faint."""


@dataclass(frozen=True, kw_only=True)
class PencilSettings(Settings):
    """Width and strength of the strokes."""

    sigma: float = field(
        default=8.0, metadata=between(0.5, 50.0, "Blur of the surroundings in pixels; more makes strokes wider.")
    )
    contrast: float = field(
        default=2.0, metadata=between(0.1, 10.0, "Brightness of the strokes; the sketch itself has 1.")
    )


def pencil(images: Tensor, settings: PencilSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, light strokes on black: a negative of pencil on paper."""
    return each_frame(images, lambda frame: sketch(frame, settings))


def sketch(frame: Frame, settings: PencilSettings) -> Frame:
    """H W 3 float32 -> H W float32: contrast (1 - (grey + ink) / (blurred + ink)), which the caller clamps."""
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) + INK
    blurred = cv2.GaussianBlur(grey, (0, 0), settings.sigma)
    return settings.contrast - cv2.divide(grey, blurred, scale=settings.contrast)
