"""Faces and their 478 landmarks: MediaPipe's face detector, face mesh (Kartynnik et al. 2019) and iris networks.

Places are in pixels from the top left corner, as in `blaze`. Shapes: H W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..frames import Frame
from .blaze import SAME, Anchors, Square, cropped, detect, in_picture, overlaps, sigmoid
from .litert import Network, Values
from .mediapipe import FACE_DETECTION_PART, FACE_LANDMARKS_PART, FACE_TRIANGLES_PART

Face: TypeAlias = Values
"""478 3: x, y and z in pixels (z grows away from the camera; its zero is the middle of the head). From 468 on five
points of the right iris, its middle first, then of the left one; sides are the person's own."""
MESH, IRIS = 468, 5
ANCHORS = Anchors(side=128, strides=(8, 16, 16, 16), low=-1)
EYES = ((33, 133), (263, 362))
"""The outer and inner corner of the right eye, and of the left one."""
FACE_MARGIN, EYE_MARGIN = 1.5, 2.3
"""Sides of what the networks see, in sides of the box and in widths of the eye."""


@dataclass(frozen=True, kw_only=True)
class FaceFinder:
    """The three networks."""

    detector: Network
    mesh: Network
    iris: Network

    @classmethod
    def load(cls, pack: Path, iris: Path) -> FaceFinder:
        """From the files `mediapipe.FACE` and `mediapipe.IRIS_LANDMARKS`. Raises WeightsError."""
        return cls(
            detector=Network(pack, FACE_DETECTION_PART), mesh=Network(pack, FACE_LANDMARKS_PART), iris=Network(iris)
        )

    def find(self, frame: Frame, among: Sequence[Square], min_confidence: float) -> list[Face]:
        """H W 3 in [0, 1] -> the faces in these upright squares, the most certain first."""
        found: list[Face] = []
        for box_and_points in detect(self.detector, ANCHORS, frame, among, min_confidence).places:
            face = self.read(frame, face_square(box_and_points), min_confidence)
            if face is not None and not any(overlaps(box_of(face), box_of(other)[None])[0] > SAME for other in found):
                found.append(face)
        return found

    def read(self, frame: Frame, square: Square, min_confidence: float) -> Face | None:
        """The face in a square; None if there is none."""
        points, flag = self.mesh(cropped(frame, square, 192))
        if sigmoid(flag).item() < min_confidence:
            return None
        mesh = spatial(points.reshape(MESH, 3) / 192, square)
        return np.concatenate(
            [mesh, *(self.eye(frame, mesh[list(corners), :2], side) for side, corners in enumerate(EYES))]
        )

    def eye(self, frame: Frame, corners: Values, side: int) -> Values:
        """The iris, 5 3, from the corners of an eye; the network knows eyes whose outer corner is on the left."""
        (x0, y0), (x1, y1) = corners[::-1] if side else corners
        width = float(np.hypot(x1 - x0, y1 - y0))
        square = Square(center=corners.mean(axis=0), side=EYE_MARGIN * width, angle=atan2(y1 - y0, x1 - x0))
        crop = cropped(frame, square, 64)
        _, iris = self.iris(np.ascontiguousarray(crop[:, ::-1]) if side else crop)
        points = iris.reshape(IRIS, 3) / 64
        if side:
            points[:, 0] = 1 - points[:, 0]
        return spatial(points, square)


def face_square(places: Values) -> Square:
    """Box and points of a detection -> what the mesh is read in: upright where the eyes are level."""
    (x0, y0), (x1, y1) = places[2:4]
    size = (places[1] - places[0]).max()
    return Square(center=places[:2].mean(axis=0), side=FACE_MARGIN * float(size), angle=atan2(y1 - y0, x1 - x0))


def spatial(points: Values, square: Square) -> Values:
    """N 3 in shares of the square -> N 3 in pixels of the picture."""
    return np.concatenate([in_picture(points[:, :2], square), points[:, 2:] * square.side], axis=1)


def box_of(face: Face) -> Values:
    """2 2: the corners of the smallest box around it."""
    return np.stack([face[:MESH, :2].min(axis=0), face[:MESH, :2].max(axis=0)])


def triangles(pack: Path) -> NDArray[np.int64]:
    """T 3: which landmarks are the corners of each triangle of the mesh, from the file `mediapipe.FACE`.

    A list in the format of protocol buffers: a tag of one byte, then a number in one or two bytes of seven bits, the
    lower ones first, and the eighth bit set where there is another byte.
    """
    numbers, content = list[int](), iter(pack.read_bytes()[FACE_TRIANGLES_PART])
    for _ in content:
        low = next(content)
        numbers.append(low if low < 128 else low - 128 + 128 * next(content))
    return np.array(numbers).reshape(-1, 3)
