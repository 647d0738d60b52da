"""The lines of a drawing as a scribble: white on black, whatever the paper.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from .frames import Frame, each_8bit, strongest, weakest
from .settings import Settings, between, one_of

Lines = Literal["dark", "light"]


@dataclass(frozen=True, kw_only=True)
class ScribbleSettings(Settings):
    """What of a drawing is a line."""

    lines: Lines = field(
        default="dark", metadata=one_of(get_args(Lines), "dark: ink on white paper. light: chalk on a board.")
    )
    threshold: int = field(
        default=127, metadata=between(1, 254, "Darker (or lighter) than this in any of red, green and blue is a line.")
    )


def scribble(images: Tensor, settings: ScribbleSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on lines and 0 elsewhere, as lllyasviel's scribble2image for dark lines."""
    return each_8bit(images, lambda image: scribbled(image, settings))


def scribbled(image: Frame, settings: ScribbleSettings) -> Frame:
    """H W 3 uint8 -> H W uint8."""
    import cv2

    if settings.lines == "dark":
        return cv2.threshold(weakest(image), settings.threshold - 1, 255, cv2.THRESH_BINARY_INV)[1]
    return cv2.threshold(strongest(image), settings.threshold, 255, cv2.THRESH_BINARY)[1]
