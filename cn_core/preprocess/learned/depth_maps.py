"""From what networks say about depth to depth maps: near is white, floats from end to end, one range or many.

Shapes: B batch, H W pixels of the pictures, h w of what a network sees, N values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Settings, one_of

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

    @property
    def whole_batch(self) -> bool:
        """Whether a picture's map depends on the others: then batches must not be split, or taken from a cache."""
        return self.normalise == "batch"


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


def depth_map(
    levels: Tensor, size: tuple[int, int], settings: DepthSettings, percentiles: tuple[float, float] = (0, 100)
) -> Tensor:
    """B h w, larger is nearer -> B 1 H W in [0, 1] whose ends are these percentiles of each picture, or of them all."""
    levels = levels.float()
    if settings.whole_batch:
        ends = [percentile(levels, one).expand(len(levels)) for one in percentiles]
    else:
        ends = [torch.stack([percentile(level, one) for level in levels]) for one in percentiles]
    low, high = (end[:, None, None] for end in ends)
    span = torch.where(high > low, high - low, 1)
    maps = ((levels - low) / span)[:, None]
    if tuple(maps.shape[2:]) != size:
        maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    return maps.clamp(0, 1)


def percentile(values: Tensor, percent: float) -> Tensor:
    """The value that so many percent of N values are below; torch.quantile takes no more than 2^24."""
    if percent == 0:
        return values.min()
    if percent == 100:
        return values.max()
    return values.flatten().kthvalue(1 + round(percent / 100 * (values.numel() - 1))).values
