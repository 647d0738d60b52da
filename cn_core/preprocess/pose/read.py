"""One tolerant reader for every dialect of POSE_KEYPOINT, and one writer that every reader understands.

The common JSON is a list of frames {people, canvas_width, canvas_height}; a person has lists of x, y, confidence by
the names in `layouts`. Dialects differ in coordinates (pixels, or shares of the canvas), in how a point is missing
(0, 0, 0 or -1), in parts that are None, in nesting, in the skeleton and in whether there is a canvas at all. Time and
memory are bounded: no recursion, and each list is counted before it is read. Shapes: N 3 points as in `keypoints`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from .keypoints import (
    MAX_SIDE,
    Frame,
    Person,
    Points,
    PoseError,
    each_person,
    everything,
    on_one_canvas,
    seen,
    transformed,
)
from .layouts import NAMES
from .raw import FORM, RawFrame, is_person, listed, raw_frame, shown

Space: TypeAlias = Literal["auto", "pixels", "shares"]
MAX_TEXT, MAX_FRAMES, MAX_PEOPLE = 1 << 25, 10_000, 50_000
"""Characters of a text, frames, people in all of them."""
FEW = 3
"""So many points do not all lie within two pixels of a corner: they are shares of the canvas."""
BLOCK = 64
"""Pixels: OpenPose's detector in comfyui_controlnet_aux pads both sides to a multiple of it."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read."""

    frames: tuple[Frame, ...]
    """At least one."""
    notes: tuple[str, ...]
    """What was decided, repaired or left out, a sentence each."""


def read(source: object, *, width: int = 0, height: int = 0, space: Space = "auto", padded: bool = False) -> Reading:
    """JSON text, a frame, a person, or a list of either -> frames in pixels of their canvas.

    `width` and `height` are those of a canvas that the frames do not tell. `space` auto: a frame whose points all lie
    within -1 and 2 is in shares of its canvas. `padded`: those are shares of the canvas padded to multiples of 64, as
    OpenPose's node of comfyui_controlnet_aux writes them. Raises PoseError for all else.
    """
    raws = raw_frames(frames_of(parsed(source)))
    notes = sorted({note for raw in raws for note in raw.notes})
    shares = [space == "shares"] * len(raws) if space != "auto" else in_shares(raws)
    raws, said = with_canvas(raws, shares, width, height)
    frames = tuple(in_pixels(raw, share, padded) for raw, share in zip(raws, shares, strict=True))
    if any(shares):
        said.append(f"{sum(shares)} of {len(frames)} frames were in shares of the canvas and are in pixels now.")
    return Reading(frames=frames, notes=(*notes, *said))


def write(frames: tuple[Frame, ...], *, certain_from: float = 0.0) -> list[dict[str, Any]]:
    """The common JSON, as Python's lists and dicts: all parts at full length, flat, in pixels of one canvas.

    `certain_from`: confidence from here on becomes 1 and below it 0; comfyui_controlnet_aux draws nothing below 1.
    0 leaves it alone. Numbers are rounded to a thousandth, and a
    point is never where those are that mean a missing one.
    """
    return [
        {
            "people": [written(person, certain_from) for person in frame.people],
            "canvas_width": frame.width,
            "canvas_height": frame.height,
        }
        for frame in on_one_canvas(frames)
    ]


def written(person: Person, certain_from: float) -> dict[str, list[float]]:
    """One person of the common JSON."""
    lists: dict[str, list[float]] = {}
    for part, (name, *_) in NAMES.items():
        points = np.asarray(getattr(person, part), np.float64).round(3)
        there = seen(getattr(person, part), certain_from)
        if certain_from:
            points[there, 2] = 1
        points[~there] = 0
        points[there & (points[:, 0] == points[:, 1]) & np.isin(points[:, 0], (0, -1)), 0] += 0.001
        lists[name] = points.flatten().tolist()
    return lists


def parsed(source: object) -> object:
    """JSON text -> what it says; anything else as it is. Raises PoseError for what is no JSON, or too long."""
    if not isinstance(source, str):
        return source
    if len(source) > MAX_TEXT:
        raise PoseError(f"The keypoints are a text of {len(source)} characters, and {MAX_TEXT} are the most.")
    try:
        return json.loads(source)
    except json.JSONDecodeError as error:
        raise PoseError(
            f"The keypoints are no JSON, or end early: {error.msg} in line {error.lineno}, column {error.colno}. {FORM}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise PoseError(f"The keypoints are JSON that cannot be read: {error!s:.80}. {FORM}") from error


def frames_of(value: object) -> list[object]:
    """The frames in what was parsed; a person, or a list of people, is one frame."""
    if is_person(value):
        return [{"people": [value]}]
    if isinstance(value, Mapping):
        if "people" not in value and "animals" not in value:
            raise PoseError(f"The keypoints have neither people nor a pose: they are {shown(value)}. {FORM}")
        return [value]
    frames = listed(value)
    if not frames:
        raise PoseError(f"There are no keypoints: they are {shown(value)}. {FORM}")
    if len(frames) > MAX_FRAMES:
        raise PoseError(f"The keypoints have {len(frames)} frames, and {MAX_FRAMES} are the most.")
    return [{"people": frames}] if is_person(frames[0]) else frames


def raw_frames(values: list[object]) -> list[RawFrame]:
    """All frames as they came, people counted on the way."""
    raws: list[RawFrame] = []
    count = 0
    for index, value in enumerate(values):
        raws.append(raw_frame(value, index))
        count += len(raws[-1].people)
        if count > MAX_PEOPLE:
            raise PoseError(f"The keypoints have {count} people up to frame {index}, and {MAX_PEOPLE} are the most.")
    return raws


def in_shares(raws: list[RawFrame]) -> list[bool]:
    """For each frame whether its coordinates are shares of the canvas; with too few points to tell it is as the others.

    The frame decides, not the part: a hand in the corner is within two pixels of it, a person is not.
    """
    places = [seen_places(raw) for raw in raws]
    within = [bool(((place >= -1) & (place <= 2)).all()) for place in places]
    sure = [len(place) >= FEW for place in places]
    if not any(sure):
        sure = [len(place) > 0 for place in places]
    others = any(share for share, decides in zip(within, sure, strict=True) if decides)
    return [
        (share if decides else others) and not 0 < min(raw.width, raw.height) <= 2
        for raw, share, decides in zip(raws, within, sure, strict=True)
    ]


def seen_places(raw: RawFrame) -> Points:
    """N 2: where the points of all people are."""
    if not raw.people:
        return np.zeros((0, 2), np.float32)
    points = np.concatenate([everything(person) for person in raw.people])
    return points[seen(points), :2]


def with_canvas(raws: list[RawFrame], shares: list[bool], width: int, height: int) -> tuple[list[RawFrame], list[str]]:
    """The frames with a canvas each, their own before the given one, and what was done about it.

    Without either it is the first that another frame has, else, in pixels, what holds all points.
    """
    if all(raw.width and raw.height for raw in raws):
        return raws, []
    known = next(((raw.width, raw.height) for raw in raws if raw.width and raw.height), None)
    if width and height:
        canvas, source = (width, height), "given"
    elif known:
        canvas, source = known, "that of another frame"
    elif any(shares):
        raise PoseError(
            "The keypoints are shares of a canvas whose size they do not tell. Give its width and height: the pose "
            "nodes that read keypoints have them."
        )
    else:
        canvas, source = holding(raws), "the smallest that holds all points"
    note = f"Frames without a canvas size got {canvas[0]}x{canvas[1]}, {source}."
    full = [raw if raw.width and raw.height else replace(raw, width=canvas[0], height=canvas[1]) for raw in raws]
    return full, [note]


def holding(raws: list[RawFrame]) -> tuple[int, int]:
    """Width and height of the smallest canvas with sides in multiples of 64 that holds all points."""
    places = np.concatenate([np.zeros((1, 2), np.float32), *(seen_places(raw) for raw in raws)])
    width, height = (min(padded_side(int(end) + 1), MAX_SIDE) for end in places.max(axis=0))
    return width, height


def padded_side(side: int) -> int:
    """The next multiple of 64."""
    return math.ceil(side / BLOCK) * BLOCK


def in_pixels(raw: RawFrame, share: bool, padded: bool) -> Frame:
    """The frame in pixels of its canvas."""
    frame = Frame(people=raw.people, width=raw.width, height=raw.height)
    if not share:
        return frame
    sides = (padded_side(raw.width), padded_side(raw.height)) if padded else (raw.width, raw.height)
    return each_person(frame, lambda person: transformed(person, lambda xy: xy * np.array(sides, np.float32)))
