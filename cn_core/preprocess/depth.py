"""Depth maps at the range that a ControlNet wants: stretched, inverted, bent, in floats from end to end.

Shapes: B batch, H W pixels. Depth is white where it is near.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from ..errors import ControlNetKitError
from .frames import Frame, checked, drawn, in_parallel, read
from .settings import Settings, between, one_of

Normalise = Literal["batch", "frame", "off"]
NARROWEST = 0.001


@dataclass(frozen=True, kw_only=True)
class DepthRemapSettings(Settings):
    """First the range is normalised, then cut and bent."""

    normalise: Normalise = field(
        default="batch",
        metadata=one_of(
            get_args(Normalise), "batch: one range for all pictures, so that videos do not flicker. off: 0 to 1."
        ),
    )
    low_percentile: float = field(
        default=0.0,
        metadata=between(0.0, 49.0, "What is darker than so many percent of the pixels becomes 0.", step=0.1),
    )
    high_percentile: float = field(
        default=100.0,
        metadata=between(51.0, 100.0, "What is brighter than so many percent of the pixels becomes 1.", step=0.1),
    )
    near: float = field(
        default=1.0, metadata=between(0.0, 1.0, "Level that becomes white; swap near and far to invert a map.")
    )
    far: float = field(default=0.0, metadata=between(0.0, 1.0, "Level that becomes black."))
    gamma: float = field(
        default=1.0, metadata=between(0.1, 10.0, "Exponent: above 1 is darker, which tells near things apart better.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if abs(self.near - self.far) < NARROWEST:
            raise ControlNetKitError(
                f"DepthRemapSettings: near is {self.near:g} and far {self.far:g}; they have to differ by {NARROWEST:g}."
            )


def depth_remap(images: Tensor, settings: DepthRemapSettings) -> Tensor:
    """B 3 H W, any finite values -> B 3 H W in [0, 1]: mean of the channels, as many levels as came in.

    Raises HintError as `frames.checked` and `frames.read` do.
    """
    levels = mean_levels(images)
    if settings.normalise == "batch":
        ranges = [percentiles(levels, settings)] * len(levels)
    elif settings.normalise == "frame":
        ranges = [percentiles(level, settings) for level in levels]
    else:
        ranges = [(0.0, 1.0)] * len(levels)
    return drawn(images, lambda _, index: bent(levels[index], *ranges[index], settings))


def mean_levels(images: Tensor) -> Frame:
    """B 3 H W -> B H W float32."""
    import cv2

    batch, _, height, width = checked(images).shape
    levels = np.empty((batch, height, width), np.float32)
    pictures = images.detach().cpu().unbind()

    def work(index: int) -> None:
        cv2.transform(read(pictures[index]), np.full((1, 3), 1 / 3), dst=levels[index])

    in_parallel(work, batch)
    return levels


def percentiles(levels: Frame, settings: DepthRemapSettings) -> tuple[float, float]:
    """The values that become 0 and 1."""
    low, high = settings.low_percentile, settings.high_percentile
    if (low, high) == (0, 100):
        return float(levels.min()), float(levels.max())
    found = np.percentile(levels, (low, high))
    return float(found[0]), float(found[1])


def bent(level: Frame, low: float, high: float, settings: DepthRemapSettings) -> Frame:
    """H W -> H W in [0, 1]: normalised, cut at far and near, to the power of gamma. A constant is 0 before the cut."""
    black = low + settings.far * ((high - low) or 1)
    white = low + settings.near * ((high - low) or 1)
    cut = np.clip((level - black) / (white - black), 0, 1)
    return cut if settings.gamma == 1 else np.power(cut, np.float32(settings.gamma))
