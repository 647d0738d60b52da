"""From what networks say about depth to depth maps: near is white, floats from end to end, one range or many.

Shapes: B batch, H W pixels of the pictures, h w of what a network sees, N values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..preprocessor import AnySettings
from ..settings import Settings, one_of
from .detector import like

Normalise = Literal["frame", "batch"]
LONGEST = 4
"""Times the short side that a network should see: long strips are seen smaller."""


@dataclass(frozen=True, kw_only=True)
class DepthSettings(Settings):
    """Which range becomes black to white."""

    normalise: Normalise = field(
        default="frame",
        metadata=one_of(
            get_args(Normalise),
            "frame: each picture from black to white. batch: one range, so that videos flicker less.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DepthDetector(Generic[AnySettings]):
    """A network that tells how near things are."""

    network: nn.Module
    look: Callable[[Any, Tensor, AnySettings], Tensor]
    """Network, B 3 H W in [0, 1] in its dtype and on its device, settings -> B h w, larger is nearer."""
    finish: Callable[[Tensor, AnySettings], Tensor]
    """B 1 H W of `raw` -> B 3 H W in [0, 1]."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The one network."""
        return (self.network,)

    def raw(self, images: Tensor, settings: AnySettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 1 H W float32, larger is nearer: every picture by itself, in no particular range."""
        levels = self.look(self.network, like(images, self.network), settings).float()[:, None]
        size = images.shape[2:]
        if levels.shape[2:] != size:
            levels = F.interpolate(levels, size=size, mode="bicubic")
        return levels.to(images.device)

    def __call__(self, images: Tensor, settings: AnySettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W in [0, 1], near is white."""
        return self.finish(self.raw(images, settings), settings).to(images)


def network_size(height: int, width: int, short_side: int, multiple: int) -> tuple[int, int]:
    """The size that a network sees: about these proportions, both sides multiples."""
    scale = min(short_side / min(height, width), LONGEST * short_side / max(height, width))
    rows, columns = (max(round(side * scale / multiple), 1) * multiple for side in (height, width))
    return rows, columns


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """B C H W -> B C h w in [0, 1], cubic, over areas when shrinking."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def depth_maps(levels: Tensor, settings: DepthSettings, percentiles: tuple[float, float] = (0, 100)) -> Tensor:
    """B 1 H W, larger is nearer -> B 3 H W in [0, 1] that ends at these percentiles of each picture, or of them all."""
    if settings.normalise == "batch":
        ends = [percentile(levels, one).expand(len(levels)) for one in percentiles]
    else:
        ends = [torch.stack([percentile(level, one) for level in levels]) for one in percentiles]
    low, high = (end[:, None, None, None] for end in ends)
    span = torch.where(high > low, high - low, 1)
    return ((levels - low) / span).clamp(0, 1).expand(-1, 3, -1, -1)


def percentile(values: Tensor, percent: float) -> Tensor:
    """The value that so many percent of N values are below; torch.quantile takes no more than 2^24."""
    if percent == 0:
        return values.min()
    if percent == 100:
        return values.max()
    return values.flatten().kthvalue(1 + round(percent / 100 * (values.numel() - 1))).values
