"""Content shuffle: the picture warped by smooth noise, so that only its style and colours are left (ControlNet 1.1).

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, checked, clamped, drawn, read
from .settings import Settings, between, described

CELL = 256
"""Pixels between the random values of the noise."""


@dataclass(frozen=True, kw_only=True)
class ShuffleSettings(Settings):
    """Which warp."""

    seed: int = field(
        default=0, metadata=between(0, 2**64 - 1, "Every number, 0 too, is another warp, and always the same one.")
    )
    per_frame: bool = field(
        default=False,
        metadata=described("Another warp for each picture of a batch; off: one for all, as videos want it."),
    )


def shuffle(images: Tensor, settings: ShuffleSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W. The first picture is the same with `per_frame` and without."""
    import cv2

    height, width = checked(images).shape[2:]

    def own(index: int) -> tuple[Frame, Frame]:
        return warp(np.random.default_rng([settings.seed, index]), height, width)

    shared = None if settings.per_frame else own(0)

    def warped(image: Tensor, index: int) -> Frame:
        return cv2.remap(clamped(read(image)), *(shared or own(index)), cv2.INTER_LINEAR)

    return drawn(images, warped)


def warp(random: np.random.Generator, height: int, width: int) -> tuple[Frame, Frame]:
    """Where each pixel comes from: x and y, H W float32 each."""
    return noise(random, height, width) * np.float32(width - 1), noise(random, height, width) * np.float32(height - 1)


def noise(random: np.random.Generator, height: int, width: int) -> Frame:
    """H W float32 from 0 to 1: random values on a grid, and cubic between them."""
    import cv2

    grid = random.random((height // CELL + 2, width // CELL + 2), dtype=np.float32)
    smooth = cv2.resize(grid, (width + 2 * CELL, height + 2 * CELL), interpolation=cv2.INTER_CUBIC)
    inner = smooth[CELL : CELL + height, CELL : CELL + width]
    inner = inner - inner.min()
    return inner / max(float(inner.max()), np.finfo(np.float32).tiny)
