"""Poses changed: scaled, moved, turned, mirrored, with other proportions, and fewer people.

Shapes: N 3 points as in `keypoints`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..settings import Settings, between, described, one_of
from .keypoints import Frame, Person, Points, PoseError, each_person, everything, placed, seen, transformed

BODY_MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
FOOT_MIRROR = [3, 4, 5, 0, 1, 2]
FACE_MIRROR = [
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65, 69, 68),  # inner lips, pupils
]
"""For each point the one that takes its place in a mirror."""
BONES = {
    "head": ((0, 14), (0, 15), (14, 16), (15, 17)),
    "neck": ((1, 0),),
    "shoulders": ((1, 2), (1, 5)),
    "arms": ((2, 3), (3, 4), (5, 6), (6, 7)),
    "torso": ((1, 8), (1, 11)),
    "legs": ((8, 9), (9, 10), (11, 12), (12, 13)),
}
"""Part -> its bones, the end nearer to the neck first."""
OUTWARDS = sorted(
    ((near, far, part) for part, bones in BONES.items() for near, far in bones),
    key=lambda bone: (bone[0] != 1, bone[0] not in (0, 2, 5, 8, 11)),
)
"""All bones, each after the one that it hangs on."""
NOSE, RIGHT_WRIST, LEFT_WRIST, RIGHT_ANKLE, LEFT_ANKLE = 0, 4, 7, 10, 13


@dataclass(frozen=True, kw_only=True)
class PlaceSettings(Settings):
    """Where and how large the people are."""

    scale: float = field(
        default=1.0, metadata=between(0.01, 100.0, "Size of each person, from the middle of what is seen of them.")
    )
    turn: float = field(default=0.0, metadata=between(-360.0, 360.0, "Degrees clockwise, around the same place."))
    right: float = field(default=0.0, metadata=between(-16384.0, 16384.0, "Pixels to the right."))
    down: float = field(default=0.0, metadata=between(-16384.0, 16384.0, "Pixels down."))
    flip: bool = field(
        default=False, metadata=described("Mirror the canvas: left becomes right, limbs change sides too.")
    )
    around: str = field(
        default="each person", metadata=one_of(("each person", "canvas"), "What scaling and turning leave where it is.")
    )


@dataclass(frozen=True, kw_only=True)
class Proportions(Settings):
    """How long or large the parts of a body become; 1 leaves them alone. What hangs on a part moves along."""

    head: float = field(default=1.0, metadata=between(0.0, 10.0, "Head and face, around the nose."))
    neck: float = field(default=1.0, metadata=between(0.0, 10.0, "From the neck to the nose."))
    shoulders: float = field(default=1.0, metadata=between(0.0, 10.0, "From the neck to the shoulders."))
    arms: float = field(default=1.0, metadata=between(0.0, 10.0, "Upper and lower arms."))
    torso: float = field(default=1.0, metadata=between(0.0, 10.0, "From the neck to the hips."))
    legs: float = field(default=1.0, metadata=between(0.0, 10.0, "Thighs and shanks."))
    hands: float = field(default=1.0, metadata=between(0.0, 10.0, "Around the wrists."))
    feet: float = field(default=1.0, metadata=between(0.0, 10.0, "Around the ankles."))


@dataclass(frozen=True, kw_only=True)
class PickSettings(Settings):
    """Which people stay."""

    order: str = field(
        default="largest first",
        metadata=one_of(
            ("largest first", "left to right", "top to bottom", "most certain first", "as detected"),
            "How people are counted.",
        ),
    )
    first: int = field(default=0, metadata=between(0, 255, "The first one to keep, from 0."))
    count: int = field(default=1, metadata=between(1, 256, "How many to keep."))


def relocated(frame: Frame, settings: PlaceSettings) -> Frame:
    """Scaled and turned, then moved, then mirrored."""
    right, down = settings.scale * np.cos(np.deg2rad(settings.turn)), settings.scale * np.sin(np.deg2rad(settings.turn))
    turn: Points = np.array([[right, -down], [down, right]], np.float32)
    shift: Points = np.array([settings.right, settings.down], np.float32)
    middle: Points = np.array([(frame.width - 1) / 2, (frame.height - 1) / 2], np.float32)

    def relocate(person: Person) -> Person:
        origin = middle if settings.around == "canvas" else center(person)
        return transformed(person, lambda xy: np.asarray((xy - origin) @ turn.T + origin + shift, np.float32))

    moved = each_person(frame, relocate)
    return each_person(moved, lambda person: flipped(person, frame.width)) if settings.flip else moved


def flipped(person: Person, width: int) -> Person:
    """The person in a mirror: what was at the left border of the canvas is at the right one, and right is left."""
    mirrored = transformed(person, lambda xy: np.stack([width - 1 - xy[:, 0], xy[:, 1]], axis=1))
    return Person(
        body=mirrored.body[BODY_MIRROR],
        face=mirrored.face[FACE_MIRROR],
        left_hand=mirrored.right_hand,
        right_hand=mirrored.left_hand,
        foot=mirrored.foot[FOOT_MIRROR],
    )


def proportioned(person: Person, proportions: Proportions) -> Person:
    """The person with other lengths of bones, at the same angles; the neck stays where it is.

    A bone with a missing end keeps its length, and what hangs on it moves along all the same.
    """
    body, there = person.body, seen(person.body)
    shift = np.zeros((len(body), 2), np.float32)
    for near, far, part in OUTWARDS:
        shift[far] = shift[near]
        if there[near] and there[far]:
            shift[far] += (getattr(proportions, part) - 1) * (body[far, :2] - body[near, :2])

    def around(points: Points, joint: int, factor: float, origin: Points) -> Points:
        origin = body[joint] if there[joint] else origin
        return placed(points, lambda xy: (xy - origin[:2]) * factor + origin[:2] + shift[joint])

    feet = [
        around(half, ankle, proportions.feet, half[2])
        for half, ankle in ((person.foot[:3], LEFT_ANKLE), (person.foot[3:], RIGHT_ANKLE))
    ]
    return Person(
        body=placed(body, lambda xy: xy + shift),
        face=around(person.face, NOSE, proportions.head, person.face[30]),
        left_hand=around(person.left_hand, LEFT_WRIST, proportions.hands, person.left_hand[0]),
        right_hand=around(person.right_hand, RIGHT_WRIST, proportions.hands, person.right_hand[0]),
        foot=np.concatenate(feet),
    )


def picked(frame: Frame, settings: PickSettings) -> Frame:
    """The frame with some of its people, in the order asked for; those without a visible point do not count."""
    people = [person for person in frame.people if seen(everything(person)).any()]
    key = {
        "largest first": lambda person: -area(person),
        "left to right": lambda person: center(person)[0],
        "top to bottom": lambda person: center(person)[1],
        "most certain first": lambda person: -everything(person)[:, 2].sum(),
        "as detected": lambda _: 0,
    }[settings.order]
    return replace(frame, people=tuple(sorted(people, key=key)[settings.first : settings.first + settings.count]))


def extent(person: Person, threshold: float = 0.0) -> Points:
    """2 2: the smallest and the largest x, y of what is seen. Raises PoseError if that is nothing."""
    points = everything(person)
    places = points[seen(points, threshold), :2]
    if not len(places):
        raise PoseError("Nothing is seen of a person, so that there is no place where they are.")
    return np.stack([places.min(axis=0), places.max(axis=0)])


def center(person: Person) -> Points:
    """2: the middle of what is seen; of nothing it is the origin."""
    return extent(person).mean(axis=0) if seen(everything(person)).any() else np.zeros(2, np.float32)


def area(person: Person) -> float:
    """Square pixels of the box around what is seen."""
    low, high = extent(person)
    return float(np.prod(high - low + 1))
