"""Poses of people as OpenPose ControlNets know them: BlazePose's bodies, with hands and faces.

Places are in pixels from the top left corner, as in `blaze`. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
from torch import Tensor, nn

from ..frames import Frame as Picture
from ..frames import checked, clamped, read
from ..pose.draw import DrawSettings, draw, empty
from ..pose.keypoints import Frame, Person, Points, missing
from ..settings import between, described, one_of
from .blaze import Square
from .bodies import Body, BodyFinder
from .detector import LearnedPreprocessor
from .faces import IRIS, MESH, Face, FaceFinder
from .hands import HandFinder
from .litert import PACKAGE, Network, Values
from .mediapipe import (
    FACE,
    HAND_LANDMARKS,
    IRIS_LANDMARKS,
    PALM_DETECTION,
    POSE_DETECTION,
    POSE_LANDMARKS,
    PoseModel,
    Weights,
)

logger = logging.getLogger(__name__)

BODY = [0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]
"""For each of our 18 points BlazePose's, which has no neck."""
NECK, SHOULDERS = 1, [2, 5]
FOOT = [31, -1, 29, 32, -1, 30]
"""For each of our 6 points BlazePose's, which has no small toes."""
HANDS = {"left_hand": (15, 17, 19), "right_hand": (16, 18, 20)}
"""Wrist, root of the small finger, root of the index finger."""
HEAD = list(range(11))
HAND_SEARCH, HAND_REACH, HEAD_SEARCH = 0.4, 0.1, 0.4
"""In sides of the square around the body: where a hand and a face are sought, and how far from the arm's wrist a hand's
own may be."""
HEAD_IN_FACE = ((0, 30), (14, 68), (15, 69))
"""Nose and eyes of a body, and in a face, which knows them better."""
FACE_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
    *(MESH, MESH + IRIS),
)
"""For each of our 70 points of a face the one of the mesh that is nearest; the eyes are the middles of the irises."""
HAND_FILES, FACE_FILES = (PALM_DETECTION, HAND_LANDMARKS), (FACE, IRIS_LANDMARKS)


@dataclass(frozen=True, kw_only=True)
class BlazePoseSettings(DrawSettings):
    """Who is sought, and how people are drawn."""

    model: PoseModel = field(
        default="heavy",
        metadata=one_of(get_args(PoseModel), "heavy knows best which limbs are hidden; lite is the fastest."),
    )
    max_people: int = field(
        default=4, metadata=between(1, 32, "At most so many are drawn. This network does not know crowds.")
    )
    min_confidence: float = field(
        default=0.5, metadata=between(0.05, 1.0, "How certain it has to be that somebody is there.")
    )
    small: bool = field(
        default=True, metadata=described("Look at parts of the picture as well, for several and for small people.")
    )
    face: bool = field(default=True, metadata=described("Find and draw the points of faces."))
    hands: bool = field(default=True, metadata=described("Find and draw fingers."))


@dataclass(frozen=True, kw_only=True)
class BlazePoseDetector:
    """All networks, in LiteRT on the CPU."""

    bodies: BodyFinder
    hands: HandFinder | None = None
    faces: FaceFinder | None = None

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """None."""
        return ()

    def __call__(self, images: Tensor, settings: BlazePoseSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W: people on black; pictures without people are said in the log."""
        hints = draw(self.keypoints(images, settings), settings)
        if black := empty(hints):
            logger.warning("BlazePose drew nobody in pictures %s. Lower min_confidence or threshold.", black)
        return hints.to(images)

    def keypoints(self, images: Tensor, settings: BlazePoseSettings) -> tuple[Frame, ...]:
        """B 3 H W in [0, 1] -> the people of each picture. Raises HintError as `frames.checked` and `read` do."""
        pictures = checked(images).detach().cpu()
        return tuple(self.people(clamped(read(picture)), settings) for picture in pictures)

    def people(self, picture: Picture, settings: BlazePoseSettings) -> Frame:
        """H W 3 -> its people."""
        bodies = self.bodies.find(picture, settings.small, settings.min_confidence)[: settings.max_people]
        people = tuple(self.person(picture, body, settings) for body in bodies)
        return Frame(people=people, width=picture.shape[1], height=picture.shape[0])

    def person(self, picture: Picture, body: Body, settings: BlazePoseSettings) -> Person:
        """The body with its hands and its face, as far as they are seen and switched on."""
        parts = {"body": body_18(body.points), "foot": chosen(body.points, FOOT)}
        if self.hands and settings.hands:
            for part, (wrist, *_) in HANDS.items():
                square = around(body, list(HANDS[part]), HAND_SEARCH)
                reach, place = HAND_REACH * body.square.side, body.points[wrist, :2]
                hand = self.hands.find(picture, square, place, reach, part == "right_hand")
                parts[part] = missing(part) if hand is None else on_centers(hand)
        if self.faces and settings.face:
            found = self.faces.find(picture, [around(body, HEAD, HEAD_SEARCH)], settings.min_confidence)
            if found:
                parts["face"] = face_70(found[0])
                for index, better in HEAD_IN_FACE:
                    if parts["body"][index, 2] > 0:
                        parts["body"][index, :2] = parts["face"][better, :2]
        return Person(**parts)


def around(body: Body, points: list[int], share: float) -> Square:
    """An upright square around the middle of these points, in sides of the one around the body."""
    return Square(center=body.points[points, :2].mean(axis=0), side=share * body.square.side)


def body_18(points: Values) -> Points:
    """33 3 -> 18 3: the neck is the middle of the shoulders, as certain as the less certain of them."""
    body = chosen(points, BODY)
    shoulders = body[SHOULDERS]
    body[NECK] = [*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min()]
    return np.where(body[:, 2:] > 0, body, 0)


def chosen(points: Values, indices: list[int]) -> Points:
    """N 3 -> one point for each index; zeros for -1."""
    return np.where(np.array(indices)[:, None] < 0, 0, on_centers(points)[indices]).astype(np.float32)


def on_centers(points: Values) -> Points:
    """N 3, counted from the corner of the first pixel -> from its middle, as keypoints are; what is missing is 0."""
    moved = points - np.array([0.5, 0.5, 0], np.float32)
    return np.where(points[:, 2:] > 0, moved, 0).astype(np.float32)


def face_70(face: Face) -> Points:
    """478 3 -> 70 3, all certain."""
    points = face[list(FACE_68)].copy()
    points[:, 2] = 1
    return on_centers(points)


def needed(settings: BlazePoseSettings) -> tuple[Weights, ...]:
    """The files for these settings."""
    hands = HAND_FILES if settings.hands else ()
    face = FACE_FILES if settings.face else ()
    return (POSE_DETECTION, POSE_LANDMARKS[settings.model], *hands, *face)


def load(paths: tuple[Path, ...]) -> BlazePoseDetector:
    """From the files of `needed`."""
    detector, landmarks, *rest = paths
    hands, face = ([path for path in rest if path.name in names(pair)] for pair in (HAND_FILES, FACE_FILES))
    return BlazePoseDetector(
        bodies=BodyFinder(detector=Network(detector), landmarks=Network(landmarks)),
        hands=HandFinder.load(*hands) if hands else None,
        faces=FaceFinder.load(*face) if face else None,
    )


def names(files: tuple[Weights, ...]) -> set[str]:
    """Without their folders."""
    return {Path(one.file).name for one in files}


ENTRIES = (
    LearnedPreprocessor(
        name="openpose",
        node_id="PreprocessBlazePose",
        title="BlazePose",
        group="poses and faces",
        description="People as OpenPose ControlNets know them: bodies, hands and faces, and their keypoints.",
        settings=BlazePoseSettings,
        weights=(POSE_DETECTION, *POSE_LANDMARKS.values(), *HAND_FILES, *FACE_FILES),
        needs=needed,
        load=load,
        packages=(PACKAGE,),
        aliases=("openpose", "dwpose", "BlazePose", "MediaPipe", "keypoints", "skeleton"),
        poses=True,
    ),
)
