"""Where people are, from their keypoints: boxes and masks of bodies, faces and hands.

Shapes: B frames, H W pixels of the canvas, N 3 points as in `keypoints`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..settings import Settings, between, one_of
from .draw import FINGERS, LIMBS_18, Canvas, checked, drawn, pixel
from .keypoints import Frame, Person, Points, everything, on_one_canvas, seen

REGIONS = ("person", "face", "hands", "left hand", "right hand")
HEAD = [0, 14, 15, 16, 17]
"""Of the 18 points of a body; they stand in for a face that was not detected."""
TRUNK = [1, 2, 8, 11, 5]
Box = dict[str, int]
"""x, y, width, height in pixels, as the host's BOUNDING_BOX has it."""


@dataclass(frozen=True, kw_only=True)
class RegionSettings(Settings):
    """Which regions."""

    region: str = field(
        default="person", metadata=one_of(REGIONS, "What a box or mask is for; without face points the head serves.")
    )
    padding: float = field(
        default=0.1, metadata=between(0.0, 4.0, "Margin on each side, as a share of the longer side of the box.")
    )
    threshold: float = field(default=0.3, metadata=between(0.0, 1.0, "Points that are less certain do not count."))


def boxes(frame: Frame, settings: RegionSettings) -> list[Box]:
    """A box for each region of each person that is seen, cut off at the canvas; none where nothing is left."""
    groups = [group for person in frame.people for group in regions(person, settings)]
    return [box for group in groups if (box := box_around(group, frame, settings))]


def box_around(points: Points, frame: Frame, settings: RegionSettings) -> Box | None:
    """The smallest box around the visible points with its margin; None if it is off the canvas."""
    places = points[seen(points, settings.threshold), :2]
    if not len(places):
        return None
    low, high = places.min(axis=0), places.max(axis=0)
    margin = settings.padding * (high - low).max()
    left, top = np.floor(low - margin).clip(0).astype(int).tolist()
    right, bottom = (np.ceil(high + margin) + 1).clip(max=[frame.width, frame.height]).astype(int).tolist()
    if left >= right or top >= bottom:
        return None
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def masks(frames: tuple[Frame, ...], settings: RegionSettings) -> Tensor:
    """Frames -> B H W, 1 on the people or their parts: limbs and fingers as capsules, trunk, head and face filled.

    All on the first frame's canvas. Raises PoseError if that is too large.
    """
    frames = checked(on_one_canvas(frames))
    result = torch.empty(len(frames), frames[0].height, frames[0].width)
    for frame, mask in zip(frames, result, strict=True):
        canvas = np.zeros((frame.height, frame.width), np.uint8)
        for person in frame.people:
            fill_person(canvas, person, settings)
        mask.copy_(torch.from_numpy(canvas))
    return result


def fill_person(canvas: Canvas, person: Person, settings: RegionSettings) -> None:
    """One person's region, in place."""
    if settings.region == "person":
        wide = round(max(span(person.body[TRUNK], settings), span(person.body[HEAD], settings)) * 0.35)
        fill_bones(canvas, person.body, LIMBS_18, max(wide, 1), settings)
        fill_hull(canvas, person.body[TRUNK], max(wide, 1), settings)
    if settings.region in ("person", "face"):
        face = face_of(person, settings)
        fill_hull(canvas, face, max(round(span(face, settings) * 2 * settings.padding), 1), settings)
    for side in ("left", "right"):
        if settings.region in ("person", "hands", f"{side} hand"):
            hand = person.left_hand if side == "left" else person.right_hand
            fill_bones(canvas, hand, FINGERS, max(round(span(hand, settings) * (0.1 + settings.padding)), 1), settings)
            fill_hull(canvas, hand[[0, 5, 9, 13, 17]], 1, settings)


def fill_bones(
    canvas: Canvas, points: Points, bones: tuple[tuple[int, int], ...], width: int, settings: RegionSettings
) -> None:
    """Capsules of this width in pixels, in place."""
    import cv2

    visible = drawn(points, settings.threshold)
    for start, end in bones:
        if visible[start] and visible[end]:
            cv2.line(canvas, pixel(points[start]), pixel(points[end]), 1, min(width, 32767))


def fill_hull(canvas: Canvas, points: Points, width: int, settings: RegionSettings) -> None:
    """The convex hull of the visible points with a margin of half this width, in place."""
    import cv2

    places = points[drawn(points, settings.threshold), :2].round().astype(np.int32)
    if len(places):
        hull = cv2.convexHull(places)
        cv2.fillConvexPoly(canvas, hull, 1)
        cv2.polylines(canvas, [hull], True, 1, min(width, 32767))


def regions(person: Person, settings: RegionSettings) -> list[Points]:
    """The points of each region, N 3."""
    if settings.region == "person":
        return [everything(person)]
    if settings.region == "face":
        return [face_of(person, settings)]
    hands = {"left hand": person.left_hand, "right hand": person.right_hand}
    return list(hands.values()) if settings.region == "hands" else [hands[settings.region]]


def face_of(person: Person, settings: RegionSettings) -> Points:
    """The face, or the points of the body's head if none was detected."""
    return person.face if seen(person.face, settings.threshold).any() else person.body[HEAD]


def span(points: Points, settings: RegionSettings) -> float:
    """The longer side in pixels of the box around the visible points."""
    places = points[seen(points, settings.threshold), :2]
    return float((places.max(axis=0) - places.min(axis=0)).max()) if len(places) else 0.0
