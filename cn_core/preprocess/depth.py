"""Depth maps at the range that a ControlNet wants: stretched, inverted, bent, in floats from end to end.

Shapes: B batch, H W pixels. Depth is white where it is near.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import ControlNetKitError
from .frames import checked
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
    """B 3 H W, any finite values -> B 3 H W in [0, 1]: mean of the channels, as many levels as came in."""
    levels = finite(checked(images).float().mean(dim=1))
    if settings.normalise != "off":
        parts = levels.split(1) if settings.normalise == "frame" else [levels]
        levels = torch.cat([stretched(part, settings.low_percentile, settings.high_percentile) for part in parts])
    levels = ((levels - settings.far) / (settings.near - settings.far)).clamp(0, 1) ** settings.gamma
    return levels.to(images.dtype)[:, None].repeat(1, 3, 1, 1)


def finite(levels: Tensor) -> Tensor:
    """The same value. Raises ControlNetKitError for NaN and infinite ones."""
    if not levels.isfinite().all():
        raise ControlNetKitError("The depth has NaN or infinite values. Look at the node that made it.")
    return levels


def stretched(levels: Tensor, low_percentile: float, high_percentile: float) -> Tensor:
    """Any shape -> the same, 0 to 1 between two percentiles of all values; a constant becomes 0."""
    if (low_percentile, high_percentile) == (0, 100):
        low, high = (float(value) for value in levels.aminmax())
    else:
        low, high = (float(value) for value in np.percentile(levels.cpu().numpy(), (low_percentile, high_percentile)))
    return (levels - low) / ((high - low) or 1.0)
