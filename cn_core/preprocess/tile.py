"""What Tile ControlNets are shown: pictures that lost their detail.

Shapes: B batch, H W pixels, h w pixels after shrinking.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_frame, each_frame_into
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class BlurSettings(Settings):
    """As sd-webui-controlnet's blur_gaussian."""

    sigma: float = field(default=9.0, metadata=between(0.1, 64.0, "Of the Gaussian blur, in pixels."))


@dataclass(frozen=True, kw_only=True)
class TileSettings(Settings):
    """How much detail goes."""

    scale: float = field(
        default=4.0,
        metadata=between(1.0, 32.0, "How much smaller the picture is made before it is enlarged again.", step=0.5),
    )


@dataclass(frozen=True, kw_only=True)
class GuidedTileSettings(Settings):
    """How much detail goes, and how well outlines stay."""

    scale: float = field(
        default=2.0,
        metadata=between(1.0, 32.0, "How much smaller the picture is made before it is enlarged again.", step=0.5),
    )
    radius: int = field(default=7, metadata=between(1, 64, "Of the smoothing, in pixels."))
    eps: float = field(
        default=0.01,
        metadata=between(
            0.0001, 1.0, "What is flatter than this (a variance) is smoothed; higher smooths more.", step=0.0001
        ),
    )


def blur(images: Tensor, settings: BlurSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W. The Gaussian ends at 3 sigma, as OpenCV's does for 8-bit pictures."""
    import cv2

    window = (2 * round(3 * settings.sigma) + 1,) * 2
    return each_frame(images, lambda frame: cv2.GaussianBlur(frame, window, settings.sigma))


def tile(images: Tensor, settings: TileSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W at the size it came in."""
    return each_frame_into(images, lambda frame, hint: coarser(frame, settings.scale, hint))


def coarser(frame: Frame, scale: float, result: Frame | None = None) -> Frame:
    """H W 3 -> H W 3 by way of h w 3: averaged over areas, then cubic; in `result`, if there is one."""
    import cv2

    height, width = frame.shape[:2]
    small = cv2.resize(
        frame, (max(round(width / scale), 1), max(round(height / scale), 1)), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), dst=result, interpolation=cv2.INTER_CUBIC)


def tile_guided(images: Tensor, settings: GuidedTileSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W at the size it came in: smooth, with sharp outlines."""
    return each_frame(images, lambda frame: guided(coarser(frame, settings.scale), settings.radius, settings.eps))


def guided(frame: Frame, radius: int, eps: float) -> Frame:
    """H W 3 -> H W 3: the guided filter (He 2013, equations 5, 6 and 8) with each channel as its own guide."""
    import cv2

    window = (2 * radius + 1, 2 * radius + 1)
    mean, square = cv2.blur(frame, window), cv2.multiply(frame, frame)
    variance, spare = cv2.blur(square, window), cv2.multiply(mean, mean)
    # Pictures are large: fresh memory for each of them would take as long as the sums.
    np.maximum(cv2.subtract(variance, spare, dst=variance), 0, out=variance)
    a = cv2.divide(variance, np.add(variance, np.float32(eps), out=spare), dst=variance)
    b = cv2.subtract(mean, cv2.multiply(a, mean, dst=spare), dst=mean)
    scaled = cv2.multiply(cv2.blur(a, window, dst=spare), frame, dst=spare)
    return cv2.add(scaled, cv2.blur(b, window, dst=square), dst=scaled)
