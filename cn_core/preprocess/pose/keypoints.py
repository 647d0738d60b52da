"""People's keypoints on a canvas, and which point is which.

Shapes: N 3 points of a part (x and y in pixels of the canvas from the centre of its first pixel, confidence 0 to 1).
A point that is missing is 0, 0, 0; points may lie outside of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ControlNetKitError

Points: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
LENGTHS = {"body": 18, "face": 70, "left_hand": 21, "right_hand": 21, "foot": 6}
"""Part -> its number of points. body: OpenPose's 18 (nose, neck, right shoulder, elbow, wrist, the
same left, right hip, knee, ankle, the same left, right eye, left eye, right ear, left ear; sides are the person's own);
face: 68 landmarks, right eye, left eye; hands: wrist,
then four points from the root of each finger, thumb first; foot: big toe, small toe, heel, left before right."""
PARTS = tuple(LENGTHS)
MAX_SIDE = 16384
"""Of a canvas, in pixels: the host's own limit."""


class PoseError(ControlNetKitError):
    """Keypoints that cannot be used."""


def missing(part: str) -> Points:
    """N 3 zeros."""
    return np.zeros((LENGTHS[part], 3), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """One person's points; parts that were not detected are missing point by point."""

    body: Points = field(default_factory=lambda: missing("body"))
    face: Points = field(default_factory=lambda: missing("face"))
    left_hand: Points = field(default_factory=lambda: missing("left_hand"))
    right_hand: Points = field(default_factory=lambda: missing("right_hand"))
    foot: Points = field(default_factory=lambda: missing("foot"))

    def __post_init__(self) -> None:
        for part, length in LENGTHS.items():
            points = np.array(getattr(self, part), np.float32)
            if points.shape != (length, 3):
                raise PoseError(f"A {part} has {length} points of x, y and confidence, and this one is {points.shape}.")
            points.setflags(write=False)
            object.__setattr__(self, part, points)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """The people of one picture."""

    people: tuple[Person, ...] = ()
    width: int
    """Of the canvas, in pixels."""
    height: int

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise PoseError(
                f"The canvas of a pose is {self.width:.6g}x{self.height:.6g} pixels; each side is 1 to {MAX_SIDE}."
            )


def seen(points: Points, threshold: float = 0.0) -> Mask:
    """N 3 -> N: neither missing nor less certain than the threshold."""
    return (points[:, 2] > 0) & (points[:, 2] >= threshold)


def everything(person: Person) -> Points:
    """136 3: all parts in the order of PARTS."""
    return np.concatenate([getattr(person, part) for part in PARTS])


def from_everything(points: Points) -> Person:
    """The opposite."""
    ends = np.cumsum(list(LENGTHS.values()))[:-1]
    return Person(**dict(zip(PARTS, np.split(points, ends), strict=True)))


def placed(points: Points, change: Callable[[Points], Points]) -> Points:
    """N 3 with `change` (N 2 -> N 2) done to where the points are; missing points stay missing."""
    moved = np.concatenate([change(points[:, :2]), points[:, 2:]], axis=1)
    return np.where(seen(points)[:, None], moved, 0).astype(np.float32)


def each_person(frame: Frame, change: Callable[[Person], Person]) -> Frame:
    """The frame with other people."""
    return replace(frame, people=tuple(change(person) for person in frame.people))


def transformed(person: Person, change: Callable[[Points], Points]) -> Person:
    """The person with all points placed elsewhere."""
    return from_everything(placed(everything(person), change))


def on_canvas(frame: Frame, width: int, height: int) -> Frame:
    """The frame stretched to another canvas; the very same value where it has that size."""
    if (width, height) == (frame.width, frame.height):
        return frame
    scale = np.array([width / frame.width, height / frame.height], np.float32)
    people = tuple(transformed(person, lambda xy: (xy + 0.5) * scale - 0.5) for person in frame.people)
    return Frame(people=people, width=width, height=height)


def on_one_canvas(frames: tuple[Frame, ...], width: int = 0, height: int = 0) -> tuple[Frame, ...]:
    """All frames stretched to this canvas; where a side is 0, to the first frame's."""
    return tuple(on_canvas(frame, width or frames[0].width, height or frames[0].height) for frame in frames)
