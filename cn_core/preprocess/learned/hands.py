"""Hands and their 21 points: MediaPipe's palm detector and hand landmarks (Zhang et al. 2020).

Places are in pixels from the top left corner, as in `blaze`. Shapes: H W pixels of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, pi
from pathlib import Path

import numpy as np

from ..frames import Frame
from .blaze import Anchors, Square, cropped, detect, in_picture, turned
from .litert import Network, Values
from .mediapipe import PALM_DETECTION_PART

ANCHORS = Anchors(side=192, strides=(8, 16, 16, 16))
LEAST = 0.5
"""Certainty of a palm and of a hand."""
WRIST, MIDDLE_FINGER = 0, 2
"""Among the points of a palm."""
MARGIN, UP = 2.6, 0.5
"""What the landmarks are read in: its side, and its way towards the fingers, in sides of the palm's box."""


@dataclass(frozen=True, kw_only=True)
class HandFinder:
    """The two networks."""

    detector: Network
    landmarks: Network

    @classmethod
    def load(cls, pack: Path, landmarks: Path) -> HandFinder:
        """From the files `mediapipe.PALM_DETECTION` and `mediapipe.HAND_LANDMARKS`. Raises WeightsError."""
        return cls(detector=Network(pack, PALM_DETECTION_PART), landmarks=Network(landmarks))

    def find(self, frame: Frame, around: Square, wrist: Values, reach: float, right: bool) -> Values | None:
        """H W 3 in [0, 1] -> 21 3: x, y and certainty of the hand of this side whose wrist is nearest to `wrist`.

        It is sought in an upright square; None if there is none within `reach` pixels.
        """
        palms = detect(self.detector, ANCHORS, frame, [around], LEAST).places
        hands = [hand for palm in palms if (hand := self.read(frame, palm_square(palm), right)) is not None]
        distances = [float(np.hypot(*(hand[0, :2] - wrist))) for hand in hands]
        nearest = int(np.argmin(distances)) if hands else 0
        return hands[nearest] if hands and distances[nearest] <= reach else None

    def read(self, frame: Frame, square: Square, right: bool) -> Values | None:
        """The hand in a square, 21 3; None if there is none, or one of the other side."""
        points, flag, rightness, _ = self.landmarks(cropped(frame, square, 224))
        if flag.item() < LEAST or (rightness.item() >= 0.5) != right:
            return None
        places = in_picture(points.reshape(21, 3)[:, :2] / 224, square)
        return np.concatenate([places, np.full((21, 1), flag.item())], axis=1).astype(np.float32)


def palm_square(places: Values) -> Square:
    """Box and points of a palm -> the square around the hand, fingers up."""
    box, (right, down) = places[:2], places[2 + MIDDLE_FINGER] - places[2 + WRIST]
    size, angle = float((box[1] - box[0]).max()), pi / 2 - atan2(-down, right)
    center = box.mean(axis=0) + turned(angle) @ np.array([0, -UP * size], np.float32)
    return Square(center=center, side=MARGIN * size, angle=angle)
