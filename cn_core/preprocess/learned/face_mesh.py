"""Faces as laion_face's ControlNets know them (coloured contours and irises), and as depth maps.

Shapes: B batch, H W pixels, T triangles of the mesh; faces are 478 3 as in `faces`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..frames import Frame, each_frame
from ..settings import Settings, between, described
from .blaze import squares
from .detector import LearnedPreprocessor
from .faces import IRIS, MESH, Face, FaceFinder, box_of, triangles
from .litert import PACKAGE
from .mediapipe import FACE, IRIS_LANDMARKS
from .relief import fill

logger = logging.getLogger(__name__)

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
    *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33)
LEFT_BROWS = ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
RIGHT_BROWS = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))
LIPS = (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78),
)
CONTOURS = (
    ((10, 200, 10), (OVAL,)),
    ((10, 200, 180), (LEFT_EYE,)),
    ((10, 220, 180), LEFT_BROWS),
    ((180, 200, 10), (RIGHT_EYE,)),
    ((180, 220, 10), RIGHT_BROWS),
    ((10, 180, 10), LIPS),
)
"""RGB and paths of landmarks; sides are the person's own."""
PUPILS = ((MESH, (250, 200, 10)), (MESH + IRIS, (10, 200, 250)))
"""The middle of each iris, the right one first, and its RGB."""
THICKNESS, HALF_PUPIL = 2, 2
"""Pixels."""


@dataclass(frozen=True, kw_only=True)
class FaceMeshSettings(Settings):
    """Which faces are drawn."""

    max_faces: int = field(default=10, metadata=between(1, 50, "At most so many are drawn, the most certain first."))
    min_confidence: float = field(
        default=0.5, metadata=between(0.05, 1.0, "How certain the networks have to be of a face.")
    )
    min_size: int = field(
        default=64,
        metadata=between(1, 4096, "Faces that are smaller (width or height in pixels) are left out, as in training."),
    )
    small: bool = field(
        default=True, metadata=described("Look at parts of the picture as well, for faces that are small in it.")
    )


@dataclass(frozen=True, kw_only=True)
class FaceDepthSettings(FaceMeshSettings):
    """Which faces are drawn, and how deep they are."""

    min_size: int = field(
        default=16, metadata=between(1, 4096, "Faces that are smaller (width or height in pixels) are left out.")
    )
    far: float = field(
        default=0.25, metadata=between(0.0, 1.0, "Level of the farthest point of each face; its nearest one is white.")
    )


@dataclass(frozen=True, kw_only=True)
class FaceDetector:
    """Finds faces, then draws them; the networks are in LiteRT on the CPU."""

    finder: FaceFinder
    draw: Callable[[Sequence[Face], int, int, Any], Frame]
    """Faces, height, width and settings -> a frame."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """None."""
        return ()

    def __call__(self, images: Tensor, settings: FaceMeshSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W: faces on black; pictures without faces are said in the log."""
        hints = each_frame(
            images, lambda frame: self.draw(self.faces(frame, settings), frame.shape[0], frame.shape[1], settings)
        )
        if black := [index for index, hint in enumerate(hints) if not hint.any()]:
            logger.warning("No faces were found in pictures %s. Lower min_confidence or min_size.", black)
        return hints

    def faces(self, frame: Frame, settings: FaceMeshSettings) -> list[Face]:
        """H W 3 -> the faces that the settings allow."""
        among = squares(frame.shape[1], frame.shape[0], settings.small)
        found = self.finder.find(frame, among, settings.min_confidence)
        return [face for face in found if np.ptp(box_of(face), axis=0).min() >= settings.min_size][: settings.max_faces]


def draw_contours(faces: Sequence[Face], height: int, width: int, _: object = None) -> Frame:
    """H W 3 uint8: lines and pupils of all faces on black; lines that leave the picture are left out."""
    import cv2

    canvas = np.zeros((height, width, 3), np.uint8)
    for face in faces:
        pixels = np.floor(face[:, :2]).astype(int)
        inside: list[bool] = np.all((pixels >= 0) & (pixels < (width, height)), axis=1).tolist()
        for color, paths in CONTOURS:
            for start, end in (pair for path in paths for pair in pairwise(path)):
                if inside[start] and inside[end]:
                    cv2.line(canvas, pixels[start].tolist(), pixels[end].tolist(), color, THICKNESS)
        for index, color in PUPILS:
            if inside[index]:
                x, y = (slice(max(at - HALF_PUPIL, 0), at + HALF_PUPIL) for at in pixels[index].tolist())
                canvas[y, x] = color
    return canvas


@dataclass(frozen=True, kw_only=True, eq=False)
class Relief:
    """Draws depth: white is near, each face by itself, as its landmarks tell nothing of the distance between faces."""

    mesh: NDArray[np.int64]
    """T 3: the landmarks at the corners of its triangles."""

    def __call__(self, faces: Sequence[Face], height: int, width: int, settings: FaceDepthSettings) -> Frame:
        """H W float32 in [0, 1]."""
        canvas = np.zeros((height, width), np.float32)
        for face in faces:
            z = face[:MESH, 2:]
            nearness = (z.max() - z) / max(float(np.ptp(z)), 1e-6)
            level = settings.far + (1 - settings.far) * nearness
            fill(canvas, np.concatenate([face[:MESH, :2], level], axis=1)[self.mesh])
        return canvas


def load_face_mesh(paths: tuple[Path, ...]) -> FaceDetector:
    """Contours."""
    return FaceDetector(finder=FaceFinder.load(*paths), draw=draw_contours)


def load_face_depth(paths: tuple[Path, ...]) -> FaceDetector:
    """Depth."""
    return FaceDetector(finder=FaceFinder.load(*paths), draw=Relief(mesh=triangles(paths[0])))


ENTRIES = (
    LearnedPreprocessor(
        name="face_mesh",
        node_id="PreprocessFaceMesh",
        title="Face Mesh",
        group="poses and faces",
        description="Coloured contours and pupils of faces, the hint of laion_face's (MediaPipe) ControlNets.",
        settings=FaceMeshSettings,
        weights=(FACE, IRIS_LANDMARKS),
        load=load_face_mesh,
        packages=(PACKAGE,),
        aliases=("mediapipe_face", "MediaPipe", "face landmarks", "laion_face"),
    ),
    LearnedPreprocessor(
        name="face_depth",
        node_id="PreprocessFaceDepth",
        title="Face Depth",
        group="depth, normals, motion",
        description="The relief of faces as a depth hint, near is white; for normals, connect Normal from Depth.",
        settings=FaceDepthSettings,
        weights=(FACE, IRIS_LANDMARKS),
        load=load_face_depth,
        packages=(PACKAGE,),
        aliases=("MediaPipe", "face relief", "depth"),
    ),
)
