"""DWPose (Yang et al. 2023, "Effective Whole-body Pose Estimation with Two-stages Distillation"): people found by
YOLOX, then 133 points of each by RTMPose, in onnxruntime on the CPU.

Shapes: B batch, H W pixels, K candidates, N points of a list.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...errors import WeightsError
from ..frames import Frame as Picture
from ..frames import checked, clamped, read
from ..pose.draw import DrawSettings, draw, empty
from ..pose.keypoints import Frame, Person, Points
from ..pose.layouts import split
from ..settings import between, described
from ..weights import Hub, Weights
from .detector import LearnedPreprocessor

logger = logging.getLogger(__name__)

STRIDES = (8, 16, 32)
GREY = 114
OVERLAP = 0.45
"""Intersection over union above which the less certain of two people is left out."""
MARGIN = 1.25
"""Sides of what RTMPose sees, in sides of the person's box."""
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BINS = 2
"""Of SimCC, for each pixel (Li et al. 2022, "SimCC: a Simple Coordinate Classification Perspective")."""


@dataclass(frozen=True, kw_only=True)
class DWPoseSettings(DrawSettings):
    """Who is sought, and how people are drawn."""

    max_people: int = field(default=20, metadata=between(1, 100, "At most so many are drawn, the most certain ones."))
    min_confidence: float = field(
        default=0.3, metadata=between(0.05, 1.0, "How certain it has to be that somebody is there.")
    )
    whole_picture: bool = field(
        default=False, metadata=described("Seek no people: the picture shows one. For drawings that the search misses.")
    )


@dataclass(frozen=True, kw_only=True)
class DWPoseDetector:
    """Both networks."""

    people: Any
    """onnxruntime.InferenceSession: 1 3 n n (BGR in [0, 255]) -> 1 K 85, as YOLOX exports it; None: not needed."""
    points: Any
    """onnxruntime.InferenceSession: 1 3 H W (RGB, normalised) -> 1 133 2W and 1 133 2H, SimCC's bins."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """None."""
        return ()

    def __call__(self, images: Tensor, settings: DWPoseSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W: people on black; pictures without people are said in the log."""
        hints = draw(self.keypoints(images, settings), settings)
        if black := empty(hints):
            logger.warning("DWPose drew nobody in pictures %s. Lower min_confidence or threshold.", black)
        return hints.to(images)

    def keypoints(self, images: Tensor, settings: DWPoseSettings) -> tuple[Frame, ...]:
        """B 3 H W in [0, 1] -> the people of each picture. Raises HintError as `frames.checked` and `read` do."""
        pictures = checked(images).detach().cpu()
        return tuple(self.frame(clamped(read(picture)) * 255, settings) for picture in pictures)

    def frame(self, picture: Picture, settings: DWPoseSettings) -> Frame:
        """H W 3 in [0, 255] -> its people."""
        height, width, _ = picture.shape
        boxes = np.array([[0, 0, width, height]], np.float32)
        if not settings.whole_picture:
            boxes = self.boxes(picture, settings.min_confidence)[: settings.max_people]
        people = tuple(Person(**split(self.person(picture, box))) for box in boxes)
        return Frame(people=people, width=width, height=height)

    def boxes(self, picture: Picture, min_confidence: float) -> Picture:
        """H W 3 in [0, 255] -> K 4: left, top, right and bottom in pixels, the most certain first."""
        import cv2

        asked = self.people.get_inputs()[0]
        side = int(asked.shape[2])
        scale = side / max(picture.shape[:2])
        rows, columns = (max(int(length * scale), 1) for length in picture.shape[:2])
        seen = np.full((side, side, 3), GREY, np.float32)
        seen[:rows, :columns] = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
        (found,) = self.people.run(None, {asked.name: channels_first(seen[..., ::-1])})
        boxes, certain = decoded(found[0], side)
        kept = cv2.dnn.NMSBoxes(corner_and_size(boxes).tolist(), certain.tolist(), min_confidence, OVERLAP)
        return boxes[np.array(kept, np.intp)] / scale

    def person(self, picture: Picture, box: Picture) -> Points:
        """133 3: x and y in pixels of the picture, certainty."""
        import cv2

        asked = self.points.get_inputs()[0]
        rows, columns = int(asked.shape[2]), int(asked.shape[3])
        center, size = framed(box, columns / rows)
        scale = np.array([columns, rows]) / size
        shift = np.array([columns, rows]) / 2 - scale * center
        matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        seen = (cv2.warpAffine(picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR) - MEAN) / DEVIATION
        x, y = self.points.run(None, {asked.name: channels_first(seen)})
        points = from_simcc(x[0], y[0])
        points[:, :2] = (points[:, :2] - shift) / scale
        return np.where(points[:, 2:] > 0, points, 0)


def channels_first(picture: Picture) -> Picture:
    """H W 3 -> 1 3 H W float32."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)


def decoded(found: Picture, side: int) -> tuple[Picture, Picture]:
    """YOLOX's K 85 -> boxes K 4 (left, top, right, bottom in pixels of its input), how certain each is a person, K.

    Cells of each stride in turn, row by row: center = (offset + cell) * stride, size = exp(s) * stride; certainty of an
    object times that of the first class, which is people.
    """
    grids = [np.indices((side // one, side // one))[::-1].reshape(2, -1).T for one in STRIDES]
    cells = np.concatenate(grids)  # K 2: column, row
    strides = np.repeat(STRIDES, [len(grid) for grid in grids])[:, None]
    center, half = (found[:, :2] + cells) * strides, np.exp(found[:, 2:4]) * strides / 2
    return np.concatenate([center - half, center + half], axis=1), found[:, 4] * found[:, 5]


def corner_and_size(boxes: Picture) -> Picture:
    """K 4 with right and bottom -> with width and height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def framed(box: Picture, aspect: float) -> tuple[Picture, Picture]:
    """Left, top, right, bottom -> center and size of the rectangle around it with a margin and this width by height."""
    width, height = (box[2:] - box[:2]) * MARGIN
    return (box[:2] + box[2:]) / 2, np.array([max(width, height * aspect), max(height, width / aspect)])


def from_simcc(x: Picture, y: Picture) -> Points:
    """N 2W and N 2H -> N 3: x and y in pixels where the bins peak, and the lower of both peaks as certainty, 0 to 1."""
    certain = np.minimum(x.max(axis=1), y.max(axis=1)).clip(0, 1)
    return np.stack([x.argmax(axis=1) / BINS, y.argmax(axis=1) / BINS, certain], axis=1).astype(np.float32)


def session(path: Path) -> Any:
    """onnxruntime.InferenceSession of a file. Raises WeightsError for what is no network."""
    import onnxruntime

    state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else a warning for each constant that it does not need
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.RuntimeException) as error:
        raise WeightsError(f"{path} is no network that onnxruntime runs: {error}. Fetch it again.") from error


def load(paths: tuple[Path, ...]) -> DWPoseDetector:
    """From the files of `needed`."""
    *people, points = (session(path) for path in paths)
    return DWPoseDetector(people=people[0] if people else None, points=points)


PEOPLE = Weights(
    file="yolox_l.onnx",
    size=216746733,
    sha256="7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
    licence="Apache-2.0",
    origin=Hub(repo="yzd-v/DWPose", file="yolox_l.onnx"),
)
POINTS = Weights(
    file="dw-ll_ucoco_384.onnx",
    size=134399116,
    sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
    licence="Apache-2.0",
    origin=Hub(repo="yzd-v/DWPose", file="dw-ll_ucoco_384.onnx"),
)
ENTRIES = (
    LearnedPreprocessor(
        name="dwpose",
        node_id="PreprocessDWPose",
        title="DWPose",
        group="poses and faces",
        description="People as OpenPose ControlNets know them, found by DWPose: crowds, bodies, hands, faces and feet.",
        settings=DWPoseSettings,
        weights=(PEOPLE, POINTS),
        needs=lambda settings: (POINTS,) if settings.whole_picture else (PEOPLE, POINTS),
        load=load,
        packages=("onnxruntime",),
        aliases=("openpose", "dw_openpose_full", "RTMPose", "keypoints", "skeleton"),
        poses=True,
    ),
)
