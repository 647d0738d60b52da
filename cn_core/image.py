"""Resizing of pictures.

Shapes: B batch, C channels, H W pixels; values in [0, 1].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_short_side(images: Tensor, resolution: int) -> Tensor:
    """B C H W with the shorter side at `resolution` pixels and its proportions kept; 0 hands back the very same value.

    Cubic interpolation over an area that grows when shrinking, so that thin lines fade instead of breaking.
    """
    short = min(images.shape[2:])
    if resolution in (0, short):
        return images
    height, width = (round(side * resolution / short) for side in images.shape[2:])
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
