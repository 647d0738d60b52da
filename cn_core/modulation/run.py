"""One call of the sampler, and where in it a sigma lies.

A run has N + 1 sigmas, that is N steps. A *step coordinate* is a place in it: i where the model is asked at sigma i, N
at the end, fractions in between (samplers of second order ask there too).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import isclose, log

from ..errors import ControlNetKitError

SAME_SIGMA = 1e-6
"""Relative: a few roundings of float32, as in samplers that take logarithms and come back."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one call of the sampler goes through."""

    sigmas: tuple[float, ...]
    """N + 1, falling; the last one is 0 unless another run goes on from here."""
    percent_to_sigma: Callable[[float], float]
    """The model's noise schedule: 0 is pure noise, 1 is sigma 0."""

    def __post_init__(self) -> None:
        if len(self.sigmas) < 2:
            raise ControlNetKitError(f"A run of {len(self.sigmas)} sigmas has no step: it takes 2 or more.")

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1


def step_of(sigma: float, sigmas: tuple[float, ...]) -> float:
    """Step coordinate, 0 to N: linear in log sigma between two sigmas (linear if one is 0); outside, the nearer end."""
    for step, at in enumerate(sigmas):
        if isclose(sigma, at, rel_tol=SAME_SIGMA):
            return float(step)
    for step, (left, right) in enumerate(pairwise(sigmas)):
        if min(left, right) < sigma < max(left, right):
            if min(left, right) > 0:
                return step + log(sigma / left) / log(right / left)
            return step + (sigma - left) / (right - left)
    return 0.0 if abs(sigma - sigmas[0]) < abs(sigma - sigmas[-1]) else float(len(sigmas) - 1)


def percent_of(sigma: float, run: Run) -> float:
    """The fraction of the noise schedule at which it comes down to `sigma`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(run.percent_to_sigma(middle)) > sigma else (low, middle)
    return high
