"""Poses of a film without jitter: gaps filled, then a Gaussian or the One-Euro filter over time.

Shapes: T frames, N 3 points of a person (all parts) as in `keypoints`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from ..settings import Settings, between, one_of
from .keypoints import Frame, on_one_canvas
from .track import Track, framed, tracks


@dataclass(frozen=True, kw_only=True)
class SmoothSettings(Settings):
    """How poses are smoothed."""

    method: str = field(
        default="gaussian",
        metadata=one_of(
            ("gaussian", "one euro", "none"),
            "Gaussian looks ahead and does not lag; one euro keeps fast moves.",
        ),
    )
    fill_gaps: int = field(
        default=4,
        metadata=between(0, 1000, "Fill a point that is missing for up to so many frames on a straight line."),
    )
    sigma: float = field(
        default=1.0, metadata=between(0.0, 50.0, "Gaussian: standard deviation in frames; 0 leaves the poses alone.")
    )
    min_cutoff: float = field(
        default=1.0, metadata=between(0.001, 100.0, "One euro: cut-off in Hz at rest; lower is smoother.")
    )
    beta: float = field(
        default=10.0,
        metadata=between(0.0, 1000.0, "One euro: Hz more for each canvas diagonal per second; higher lags less."),
    )
    fps: float = field(default=24.0, metadata=between(0.1, 1000.0, "One euro: frames in a second."))


def smoothed(frames: tuple[Frame, ...], settings: SmoothSettings) -> tuple[Frame, ...]:
    """The film with each person's points smoothed, on the first frame's canvas. Raises PoseError as `tracks` does."""
    frames = on_one_canvas(frames)
    diagonal = float(np.hypot(frames[0].width, frames[0].height))
    films = [filled(film, settings.fill_gaps) for film in tracks(frames)]
    if settings.method == "gaussian" and settings.sigma:
        films = [gaussian(film, settings.sigma) for film in films]
    elif settings.method == "one euro":
        films = [one_euro(film, settings, diagonal) for film in films]
    return framed(frames, films)


def filled(film: Track, longest: int) -> Track:
    """T N 3 with gaps of up to `longest` frames on a straight line, as certain as the less certain of their ends."""
    result = film.copy()
    there = film[..., 2] > 0
    for point in np.flatnonzero(there.any(axis=0)):
        times = np.flatnonzero(there[:, point])
        for start, end in pairwise(times):
            if 1 < end - start <= longest + 1:
                ends = film[[start, end], point]  # 2 3
                share = np.arange(1, end - start)[:, None] / (end - start)
                result[start + 1 : end, point] = (1 - share) * ends[0] + share * ends[1]
                result[start + 1 : end, point, 2] = ends[:, 2].min()
    return result


def gaussian(film: Track, sigma: float) -> Track:
    """T N 3 with each place averaged over time, weighted by distance in time and by confidence."""
    radius = min(ceil(3 * sigma), len(film) - 1)
    weight = film[..., 2:].astype(np.float64)  # T N 1
    total, weights = weight * film[..., :2], weight.copy()
    for shift in range(1, radius + 1):
        share = np.exp(-0.5 * (shift / sigma) ** 2)
        for to, of in ((slice(shift, None), slice(None, -shift)), (slice(None, -shift), slice(shift, None))):
            total[to] += share * weight[of] * film[of, :, :2]
            weights[to] += share * weight[of]
    places = total / np.where(weights > 0, weights, 1)
    return np.where(weight > 0, np.concatenate([places, weight], axis=-1), 0).astype(np.float32)


def one_euro(film: Track, settings: SmoothSettings, diagonal: float) -> Track:
    """T N 3 through the One-Euro filter (Casiez, Roussel and Vogel 2012), which starts anew after each gap.

    The speed is in canvas diagonals per second, so that settings suit every size.
    """
    result = film.copy()
    before = film[0, :, :2].astype(np.float64)  # N 2
    velocity = np.zeros_like(before)
    for time in range(1, len(film)):
        now = film[time, :, :2].astype(np.float64)
        going_on = ((film[time, :, 2] > 0) & (film[time - 1, :, 2] > 0))[:, None]
        change = (now - before) * settings.fps / diagonal
        velocity = np.where(going_on, velocity + share_of_new(1.0, settings.fps) * (change - velocity), 0)
        speed = np.linalg.norm(velocity, axis=1, keepdims=True)  # N 1
        share = share_of_new(settings.min_cutoff + settings.beta * speed, settings.fps)
        before = np.where(going_on, before + share * (now - before), now)
        result[time, :, :2] = before
    return result


def share_of_new(cutoff: float | NDArray[np.float64], fps: float) -> float | NDArray[np.float64]:
    """How much of a new value a first-order low pass takes, for its cut-off in Hz (equation 6)."""
    return 1 / (1 + fps / (2 * pi * cutoff))
