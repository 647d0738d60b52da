"""Pictures without their colours, as recolouring ControlNets take them, and inverted pictures.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_frame, strongest
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class NoSettings(Settings):
    """Nothing to set."""


@dataclass(frozen=True, kw_only=True)
class GammaSettings(Settings):
    """Brightness."""

    gamma: float = field(default=1.0, metadata=between(0.1, 2.0, "Exponent: above 1 is darker, below 1 brighter."))


def grey(images: Tensor, settings: NoSettings) -> Tensor:  # noqa: ARG001 (as all preprocessors are called)
    """B 3 H W in [0, 1] -> B 3 H W: luma, 0.299 red + 0.587 green + 0.114 blue (BT.601)."""
    import cv2

    return each_frame(images, lambda frame: cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def invert(images: Tensor, settings: NoSettings) -> Tensor:  # noqa: ARG001
    """B 3 H W in [0, 1] -> B 3 H W: 1 - x."""
    return each_frame(images, lambda frame: 1 - frame)


def luminance(images: Tensor, settings: GammaSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: CIE L* of sRGB over 100, to the power of gamma."""
    return each_frame(images, lambda frame: powered(lightness(frame), settings.gamma))


def lightness(frame: Frame) -> Frame:
    """H W 3 float32 -> H W float32 in [0, 1]."""
    import cv2

    light = cv2.extractChannel(cv2.cvtColor(frame, cv2.COLOR_RGB2Lab), 0)
    return np.divide(light, np.float32(100), out=light)


def intensity(images: Tensor, settings: GammaSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: the largest of red, green and blue (V of HSV), to the power of gamma."""
    return each_frame(images, lambda frame: powered(strongest(frame), settings.gamma))


def powered(level: Frame, gamma: float) -> Frame:
    """H W float32 in [0, 1] -> H W."""
    import cv2

    return level if gamma == 1 else cv2.pow(level, gamma)
