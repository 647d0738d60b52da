"""People and BlazePose's 33 points of their bodies (Bazarevsky et al. 2020), with a mask of each.

Places are in pixels from the top left corner, as in `blaze`. Shapes: H W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, hypot, pi

import numpy as np

from ..frames import Frame
from .blaze import Anchors, Square, cropped, detect, in_picture, in_square, sigmoid, squares
from .litert import Network, Values

ANCHORS = Anchors(side=224, strides=(8, 16, 32, 32, 32), low=-1)
POINTS, ALL_POINTS = 33, 39
"""Of a body, and with those that only help to follow it through a film."""
MARGIN = 1.25
"""Of the square around a body, which is a circle around the hips."""
CERTAIN, SAME = 0.5, 0.6
"""Of points and masks; a body is another one that was found before if so many of its points lie on that one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """One person."""

    points: Values
    """33 3: x, y and certainty that it is there and can be seen. The first 11 are the head's."""
    square: Square
    """Where it was read."""
    mask: Values
    """256 256 in [0, 1]: 1 on the person, in that square."""


@dataclass(frozen=True, kw_only=True)
class BodyFinder:
    """The two networks."""

    detector: Network
    landmarks: Network

    def find(self, frame: Frame, small: bool, min_confidence: float) -> list[Body]:
        """H W 3 in [0, 1] -> its people, those that are found in the whole picture first; `small`: in its parts too."""
        whole, *parts = squares(frame.shape[1], frame.shape[0], small)
        bodies: list[Body] = []
        for among in ([whole], parts) if parts else ([whole],):
            for body in self.among(frame, among, min_confidence):
                if not any(same(body, other) for other in bodies):
                    bodies.append(body)
        return bodies

    def among(self, frame: Frame, places: Sequence[Square], min_confidence: float) -> list[Body]:
        """Whoever is in these upright squares, the most certain first."""
        found = detect(self.detector, ANCHORS, frame, places, min_confidence).places
        bodies = (self.read(frame, body_square(*one[2:4]), min_confidence) for one in found)
        return [body for body in bodies if body is not None]

    def read(self, frame: Frame, square: Square, min_confidence: float) -> Body | None:
        """The body in a square; None if there is none. What is outside of the picture is a guess, and not certain."""
        values, flag, mask, *_ = self.landmarks(cropped(frame, square, 256))
        if flag.item() < min_confidence:
            return None
        points = values.reshape(ALL_POINTS, 5)[:POINTS]
        places = in_picture(points[:, :2] / 256, square)
        inside = ((places >= 0) & (places < frame.shape[1::-1])).all(axis=1)
        certain = np.where(inside, sigmoid(points[:, 3:].min(axis=1)), 0)
        return Body(
            points=np.concatenate([places, certain[:, None]], axis=1), square=square, mask=sigmoid(mask[..., 0])
        )


def body_square(hips: Values, end: Values) -> Square:
    """The middle of the hips and a point on the circle around the body, above the head -> an upright body."""
    right, down = (float(one) for one in end - hips)
    return Square(center=hips, side=2 * MARGIN * hypot(right, down), angle=pi / 2 - atan2(-down, right))


def same(body: Body, other: Body) -> bool:
    """Whether a body is (or is part of) another one: the points of it that are seen lie on that one's mask."""
    seen = body.points[body.points[:, 2] > CERTAIN, :2]
    places = np.floor(in_square(seen, other.square) * len(other.mask)).astype(int)
    inside = ((places >= 0) & (places < len(other.mask))).all(axis=1)
    x, y = places[inside].T
    return bool((other.mask[y, x] > CERTAIN).sum() > SAME * len(seen)) if len(seen) else True
