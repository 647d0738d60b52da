"""Errors of depth maps that are right but for a scale, or a scale and a shift: all that a picture tells.

Maps are relative inverse depth in [0, 1], near is white, as ControlNets take them. Shapes: H W pixels, or any other.
"""

from __future__ import annotations

import numpy as np

from ..frames import Frame

FLOOR = 1 / 255
"""Less counts as this in logarithms."""


def scale_invariant_log_error(found: Frame, wanted: Frame) -> float:
    """sqrt(mean(d^2) - mean(d)^2) of d = log(found) - log(wanted): the spread of the ratio, 0 if it is constant.

    The root of Eigen et al. 2014, Eq. 3 with lambda = 1 (without the 1/2 of their Eq. 1). That maps hold inverse depth
    only turns the sign of d.
    """
    return float(np.std(np.log(np.maximum(found, FLOOR)) - np.log(np.maximum(wanted, FLOOR)), dtype=np.float64))


def aligned(found: Frame, wanted: Frame) -> Frame:
    """`found` times the scale plus the shift that bring it closest to `wanted` by least squares.

    Ranftl et al. 2020 (MiDaS), Eq. 5 and 6; but a scale below 0, near and far exchanged, counts as 0.
    """
    moved, target = found - found.mean(dtype=np.float64), wanted - wanted.mean(dtype=np.float64)
    power = float((moved * moved).sum())
    scale = max(float((moved * target).sum()) / power, 0.0) if power > 0 else 0.0
    return (scale * moved + wanted.mean(dtype=np.float64)).astype(np.float32)


def aligned_rmse(found: Frame, wanted: Frame) -> float:
    """Root mean square error after `aligned`, in parts of the range from black to white."""
    return float(np.sqrt(np.mean((aligned(found, wanted) - wanted) ** 2, dtype=np.float64)))
