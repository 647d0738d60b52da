"""Strength over a run: keyframes in three units, how a text says them, and which strength a sigma gets.

A run is one call of the sampler with N steps; a step coordinate is a place in it, 0 to N (see `run`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import Literal, get_args

from ..errors import ControlNetKitError
from .run import Run, percent_of, step_of
from .text import STRONGEST, Piece, whole
from .text import ScheduleError as ScheduleError

Unit = Literal["schedule", "run", "step"]
"""schedule: fraction of the noise schedule, as the host's start_percent. run: fraction of this run's steps. step: step
of this run, from 0."""
Interpolation = Literal["hold", "linear", "cosine"]
Knots = tuple[tuple[float, float], ...]
"""(step coordinate, strength), in rising order."""

EXAMPLE = "1.0@0, 0.5@30%, 0@step 12"
LAST_PLACE = {"schedule": 1.0, "run": 1.0, "step": 10000.0}
SAME_PERCENT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """A strength at a place; str() gives it as users write it."""

    at: float
    """Fraction 0 to 1, or step 0 to 10000."""
    unit: Unit
    strength: float
    """-10 to 10."""

    def __post_init__(self) -> None:
        if self.unit not in LAST_PLACE or not 0 <= self.at <= LAST_PLACE[self.unit]:
            raise ControlNetKitError(
                f"A keyframe at {self.unit} {self.at:g}: places are fractions from 0 to 1, or steps from 0 to 10000."
            )
        if not abs(self.strength) <= STRONGEST:
            raise ControlNetKitError(f"A keyframe of strength {self.strength:g}: strengths go from -10 to 10.")

    def __str__(self) -> str:
        places = {"schedule": f"{self.at:g}", "run": f"{100 * self.at:g}%", "step": f"step {self.at:g}"}
        return f"{self.strength:g}@{places[self.unit]}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Keyframes in the order of the run, one or more."""

    keyframes: tuple[Keyframe, ...]
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise ControlNetKitError("A schedule without keyframes. Give it one, or leave the schedule away.")
        if self.interpolation not in get_args(Interpolation):
            raise ControlNetKitError(f'Unknown interpolation "{self.interpolation}": take hold, linear or cosine.')


def parse(text: str, interpolation: Interpolation = "linear") -> Schedule:
    """Read "STRENGTH@PLACE, ...", PLACE being 0.3 (of the noise schedule), 30% (of this run) or step 12.

    One number alone is the strength everywhere. Raises ScheduleError.
    """
    everything = whole(text, EXAMPLE)
    if "@" not in text and "," not in text:
        keyframes = (Keyframe(at=0, unit="schedule", strength=everything.strength()),)
    else:
        keyframes = tuple(map(read_keyframe, everything.split(",")))
    return Schedule(keyframes=keyframes, interpolation=interpolation)


def read_keyframe(entry: Piece) -> Keyframe:
    """One "STRENGTH@PLACE"."""
    if "@" not in entry.text:
        raise entry.error('expected STRENGTH@PLACE, with an "@"')
    cut = entry.text.index("@")
    strength, place = entry.part(0, cut).strength(), entry.part(cut + 1)
    if place.text.endswith("%"):
        percent = place.part(0, -1).number(0, 100, "a percentage of this run")
        return Keyframe(at=percent / 100, unit="run", strength=strength)
    if place.text[:4].lower() == "step":
        step = place.part(4).number(0, LAST_PLACE["step"], "a step of this run")
        return Keyframe(at=step, unit="step", strength=strength)
    at = place.number(0, 1, 'a fraction of the noise schedule (of this run: "30%")')
    return Keyframe(at=at, unit="schedule", strength=strength)


def coordinate(keyframe: Keyframe, run: Run) -> float:
    """Step coordinate of a keyframe; places of the noise schedule outside this run come to its nearer end."""
    if keyframe.unit == "step":
        return keyframe.at
    if keyframe.unit == "run":
        return round(keyframe.at * run.steps, 9)  # 7% of 100 steps is step 7, not 7.000000000000001
    return step_of(float(run.percent_to_sigma(keyframe.at)), run.sigmas)


def resolve(schedule: Schedule, run: Run) -> Knots:
    """Where this run has which strength. Of keyframes that come to the same coordinate the later one wins.

    Two keyframes in a row on the noise schedule also hold beyond the run: if it begins or ends between them, its end
    gets what lies between their strengths there, so that runs that share a noise schedule (split samplers, denoise
    below 1) join. Beside other units a keyframe outside the run moves to its nearer end: "1@0, 0.5@30%" begins at 1.
    Raises ControlNetKitError for keyframes in falling order.
    """
    keyframes = schedule.keyframes
    if len(keyframes) > 1 and run.sigmas[0] < run.sigmas[-1] and any(k.unit == "schedule" for k in keyframes):
        raise ControlNetKitError(
            "This run adds noise, so it goes through the noise schedule backwards. "
            'Write the places as parts of this run, such as "1@0%, 0@50%".'
        )
    steps = [coordinate(keyframe, run) for keyframe in keyframes]
    check_order(keyframes, steps)
    ends = (percent_of(run.sigmas[0], run), percent_of(run.sigmas[-1], run))
    strengths = [strength_within(schedule, index, ends) for index in range(len(keyframes))]
    return tuple({step: s for step, s in zip(steps, strengths, strict=True) if s is not None}.items())


def check_order(keyframes: Sequence[Keyframe], steps: Sequence[float]) -> None:
    """Raises ControlNetKitError if a keyframe comes before its predecessor."""
    for (before, after), (early, late) in zip(pairwise(keyframes), pairwise(steps), strict=True):
        if early > late or (before.unit == after.unit and before.at > after.at):
            raise ControlNetKitError(
                f"The keyframes of a ControlNet's schedule are out of order: {before} comes to step {early:.4g} of "
                f"this run, and {after} after it to step {late:.4g}. Write them in the order in which they happen."
            )


def strength_within(schedule: Schedule, index: int, ends: tuple[float, float]) -> float | None:
    """A keyframe's strength where it, or the end of the run before it, lies; None if the run does not get that far.

    `ends` are the fractions of the noise schedule between which the run lies.
    """
    first, last = ends
    keyframe, padded = schedule.keyframes[index], (None, *schedule.keyframes, None)
    before, after = padded[index], padded[index + 2]
    if keyframe.unit != "schedule":
        return keyframe.strength
    if before and before.unit == "schedule" and keyframe.at > last + SAME_PERCENT:
        return between(before, keyframe, last, schedule.interpolation) if before.at < last else None
    if after and after.unit == "schedule" and keyframe.at < first - SAME_PERCENT and after.at > first:
        return between(keyframe, after, first, schedule.interpolation)
    return keyframe.strength


def between(before: Keyframe, after: Keyframe, at: float, interpolation: Interpolation) -> float:
    """The strength at a place between two keyframes of the same unit."""
    return blend(before.strength, after.strength, (at - before.at) / (after.at - before.at), interpolation)


def blend(early: float, late: float, fraction: float, interpolation: Interpolation) -> float:
    """From `early` at fraction 0 to `late` at 1."""
    if interpolation == "hold":
        return early
    return early + (late - early) * (fraction if interpolation == "linear" else (1 - cos(pi * fraction)) / 2)


def strength_at(knots: Knots, step: float, interpolation: Interpolation) -> float:
    """The strength at a step coordinate: the first knot's before it, the last one's after it."""
    passed = bisect_right(knots, step, key=lambda knot: knot[0])
    if passed in (0, len(knots)):
        return knots[max(passed - 1, 0)][1]
    (left, early), (right, late) = knots[passed - 1 : passed + 1]
    return blend(early, late, (step - left) / (right - left), interpolation)
