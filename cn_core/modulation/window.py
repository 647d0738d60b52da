"""When a control acts: a window over the noise schedule as the host has it, or over the steps of this run."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf

import numpy as np

from ..errors import ControlNetKitError
from .run import Run, step_of
from .schedule import LAST_PLACE, Unit


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start` to `end`; empty if the end comes first. The default is always open."""

    start: float = 0.0
    """Fraction 0 to 1 ("schedule", "run"), or a step, 0 being the first; that step is inside."""
    end: float = 1.0
    """Likewise; of steps the first one outside. "schedule" takes in the place itself, as the host does."""
    unit: Unit = "schedule"

    def __post_init__(self) -> None:
        if self.unit not in LAST_PLACE:
            raise ControlNetKitError(f'Unknown unit "{self.unit}" of a window: take schedule, run or step.')
        last = LAST_PLACE[self.unit]
        if not (0 <= self.start <= last and 0 <= self.end <= last):
            raise ControlNetKitError(
                f"A window from {self.start:g} to {self.end:g} ({self.unit}): both go from 0 to {last:g}."
            )


def active(window: Window, sigma: float, run: Run) -> bool:
    """Whether control acts when the model is asked at `sigma`.

    In the unit "schedule" to the bit what the host decides, which compares in float32. Otherwise steps count: step i
    has the evaluations from sigma i until just before sigma i + 1. A fraction of the run comes to the nearest step.
    """
    if window.unit == "schedule":
        first, last = (np.float32(float(run.percent_to_sigma(at))) for at in (window.start, window.end))
        return bool(last <= np.float32(sigma) <= first)
    start, end = steps_of(window, run)
    return start <= min(floor(step_of(sigma, run.sigmas)), run.steps - 1) < end


def steps_of(window: Window, run: Run) -> tuple[float, float]:
    """The first step inside and the first one after it, for the units "run" and "step"."""
    scale = run.steps if window.unit == "run" else 1
    start, end = (floor(at * scale + 0.5) for at in (window.start, window.end))  # 0.5 goes up
    return start, inf if end >= run.steps else end


def active_steps(window: Window, run: Run) -> tuple[int, ...]:
    """The steps, 0 to N - 1, whose first evaluation is controlled."""
    return tuple(step for step in range(run.steps) if active(window, run.sigmas[step], run))


def is_empty(window: Window, run: Run) -> bool:
    """No step of this run is controlled."""
    return not active_steps(window, run)
