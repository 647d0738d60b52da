"""One frame of POSE_KEYPOINT as it came, checked and counted; its coordinates are what they are.

Nothing here recurses, and each list is counted before it is read. Shapes: N 3 points as in `keypoints`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .keypoints import Person, Points, PoseError, seen
from .layouts import COUNTS, NAMES, full_face, split

MAX_IN_FRAME = 256
"""People."""
MAX_NUMBERS = 1000
"""Of an array."""
FARTHEST = 1e6
"""Pixels from the origin; what is farther out is no point."""
FORM = (
    "Expected is a list of frames {people: [{pose_keypoints_2d: [x, y, confidence, ...]}], canvas_width, "
    "canvas_height}."
)


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """One frame as it came: people in coordinates of their own, a canvas of 0 if it had none."""

    people: tuple[Person, ...]
    width: int
    height: int
    notes: frozenset[str]


def is_person(value: object) -> bool:
    """Whether it has a part by one of its names."""
    return isinstance(value, Mapping) and any(name in value for names in NAMES.values() for name in names)


def raw_frame(value: object, index: int) -> RawFrame:
    """One frame as it came; None is a frame without people."""
    if value is None:
        return RawFrame(people=(), width=0, height=0, notes=frozenset({"A frame is None: it has no people."}))
    if not isinstance(value, Mapping):
        raise PoseError(f"Frame {index} of the keypoints is {shown(value)}. {FORM}")
    people = listed(value.get("people"))
    if people is None:
        raise PoseError(f"The people in frame {index} of the keypoints are {shown(value['people'])}. {FORM}")
    if len(people) > MAX_IN_FRAME:
        raise PoseError(f"Frame {index} of the keypoints has {len(people)} people, and {MAX_IN_FRAME} are the most.")
    notes: set[str] = {"Animals are left out."} if value.get("animals") else set()
    return RawFrame(
        people=tuple(raw_person(one, f"frame {index}, person {place}", notes) for place, one in enumerate(people)),
        width=side(value.get("canvas_width"), index),
        height=side(value.get("canvas_height"), index),
        notes=frozenset(notes),
    )


def side(value: object, index: int) -> int:
    """A side of the canvas in pixels; 0 for none."""
    if value is None:
        return 0
    pixels = number(value, f"the canvas of frame {index}")
    if not -1 <= pixels < FARTHEST:
        raise PoseError(f"The canvas of frame {index} has a side of {shown(value)}; it is a number of pixels.")
    return max(int(pixels), 0)


def raw_person(value: object, where: str, notes: set[str]) -> Person:
    """One person as it came; a part of its own comes before the same part of a whole body."""
    if not isinstance(value, Mapping):
        raise PoseError(f"The keypoints have {shown(value)} at {where}. {FORM}")
    parts: dict[str, Points] = {}
    for part, names in NAMES.items():
        name = next((name for name in names if value.get(name) is not None), None)
        points = None if name is None else points_of(value[name], part, f"{where}, {name}", notes)
        if points is None:
            continue
        found = split(points) if part == "body" else {part: full_face(points) if part == "face" else points}
        parts |= {key: one for key, one in found.items() if key not in parts or seen(one).any()}
    return Person(**parts)


def points_of(value: object, part: str, where: str, notes: set[str]) -> Points | None:
    """A list, flat or of points, with or without confidence -> N 3, 0 for what is missing; None for an empty one."""
    values, counts = listed(value), COUNTS[part]
    if values is None or len(values) > 3 * max(counts):
        raise PoseError(f"Expected at {where} is a list of {named(counts)} points, and found {shown(value)}.")
    if not values:
        return None
    rows = [listed(one) for one in values] if any(isinstance(one, list | tuple) for one in values) else None
    numbers = row_numbers(rows, where) if rows else [number(one, where) for one in values]
    for width in (3, 2):
        if len(numbers) % width == 0 and len(numbers) // width in counts:
            return cleaned(np.array(numbers, np.float64).reshape(-1, width), notes)
    raise PoseError(
        f"There are {len(numbers)} numbers at {where}; {named(counts)} points are three numbers each, x, y, confidence."
    )


def row_numbers(rows: Sequence[list[object] | None], where: str) -> list[float]:
    """A list of points -> flat; a point that is None or empty is missing, one of two numbers is certain."""
    numbers: list[float] = []
    for row in rows:
        if row is None or len(row) not in (0, 2, 3):
            raise PoseError(f"A point at {where} is {shown(row)}; it is x, y and confidence.")
        x, y, confidence = (*row, 1.0)[:3] if row else (0.0, 0.0, 0.0)
        numbers += [number(x, where), number(y, where), number(confidence, where)]
    return numbers


def cleaned(points: NDArray[np.float64], notes: set[str]) -> Points:
    """N 2 or N 3 float64 -> N 3: zeros for what is marked as missing, not finite or far out; confidence at most 1."""
    if points.shape[1] == 2:
        points = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    x, y, confidence = points.T
    finite = np.isfinite(points).all(axis=1)
    there = finite & (confidence > 0) & ~((x == y) & ((x == 0) | (x == -1)))
    near = (abs(points[:, :2]) < FARTHEST).all(axis=1)
    if not finite.all() or (there & ~near).any():
        notes.add("Points that are no finite numbers, or far out, are missing.")
    return np.where((there & near)[:, None], points.clip(max=[np.inf, np.inf, 1]), 0).astype(np.float32)


def number(value: Any, where: str) -> float:
    """A finite number, or NaN for None and for what is too large. Raises PoseError for anything else."""
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PoseError(f"There is {shown(value)} at {where}, where a number should be.")
    try:
        return float(value)
    except OverflowError:
        return math.nan


def listed(value: object) -> list[object] | None:
    """A list, tuple or small array as a list, None as an empty one; None for anything else."""
    if value is None:
        return []
    if isinstance(value, np.ndarray) and 0 < value.size <= MAX_NUMBERS:
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def named(counts: Sequence[int]) -> str:
    """17, 18 or 25"""
    *first, last = map(str, counts)
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: object) -> str:
    """A value in a few words, however large or deep it is."""
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, Mapping):
        keys = [str(key)[:20] for key in islice(value, 5)]
        return f"an object with {', '.join(keys) or 'nothing in it'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool | float) or value is None:
        return str(value)
    return f"of type {type(value).__name__}"
