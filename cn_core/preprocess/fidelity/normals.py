"""Angles between the normals of two maps. Shapes: H W pixels; colours are (n + 1) / 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..frames import Frame

LIMITS = (11.25, 22.5, 30.0)
"""In degrees: the shares of pixels below these are customary since Fouhey et al. 2013."""
BACKGROUND = 0.01
"""A pixel darker than this in all channels has no normal."""


@dataclass(frozen=True, kw_only=True)
class NormalErrors:
    """Over the pixels that have a normal in the hint."""

    mean: float
    """In degrees, as the next one."""
    median: float
    shares: tuple[float, ...]
    """Of pixels with an error below each of LIMITS."""


def vectors(colours: Frame) -> Frame:
    """H W 3 in [0, 1] -> H W 3 of length 1; mid grey, which has no direction, becomes 0."""
    normals = 2 * colours.astype(np.float32) - 1
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)


def angles(found: Frame, wanted: Frame) -> Frame:
    """H W 3 in [0, 1] each -> H W in degrees, 0 to 180."""
    one, other = vectors(found), vectors(wanted)
    # Exact for small angles too, which the arc cosine is not (Kahan).
    return np.degrees(
        2 * np.arctan2(np.linalg.norm(one - other, axis=-1), np.linalg.norm(one + other, axis=-1))
    ).astype(np.float32)


def normal_errors(found: Frame, wanted: Frame) -> NormalErrors:
    """Of H W 3 in [0, 1] each; a hint without any normals has no errors."""
    has = wanted.max(axis=-1) >= BACKGROUND
    errors = angles(found, wanted)[has] if has.any() else np.zeros(1, np.float32)
    shares = tuple(float((errors < limit).mean()) for limit in LIMITS)
    return NormalErrors(mean=float(errors.mean()), median=float(np.median(errors)), shares=shares)
