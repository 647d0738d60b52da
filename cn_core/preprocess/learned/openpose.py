"""OpenPose (Cao et al. 2019, "OpenPose: Realtime Multi-Person 2D Pose Estimation Using Part Affinity Fields"), run by
the package controlnet_aux; its weights and that code are licensed by CMU for non-commercial use only.

Shapes: B batch, H W pixels, N points of a part.
"""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import CheckpointError, WeightsError
from ...files.checkpoint import read
from ..frames import checked, read_8bit
from ..pose.draw import DrawSettings, draw, empty
from ..pose.keypoints import LENGTHS, Frame, Person, Points, missing
from ..settings import between, described
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor

logger = logging.getLogger(__name__)

LICENCE = "CMU OpenPose (not commercial)"
MADE_BY_IMPORT = "KMP_DUPLICATE_LIB_OK"
"""An environment variable that the package sets for the whole process when this part of it is imported."""


@dataclass(frozen=True, kw_only=True)
class OpenPoseSettings(DrawSettings):
    """What is sought and drawn."""

    hands: bool = field(default=False, metadata=described("Find and draw fingers."))
    face: bool = field(default=False, metadata=described("Find and draw the points of faces."))
    max_people: int = field(default=20, metadata=between(1, 100, "At most so many are drawn."))


@dataclass(frozen=True, kw_only=True)
class OpenPoseDetector:
    """The package's detector."""

    detector: Any

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Its networks, as many as the settings need."""
        parts = (self.detector.body_estimation, self.detector.hand_estimation, self.detector.face_estimation)
        return tuple(part.model for part in parts if part is not None)

    def __call__(self, images: Tensor, settings: OpenPoseSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W: people on black; pictures without people are said in the log."""
        hints = draw(self.keypoints(images, settings), settings)
        if black := empty(hints):
            logger.warning("OpenPose found nobody in pictures %s.", black)
        return hints.to(images)

    def keypoints(self, images: Tensor, settings: OpenPoseSettings) -> tuple[Frame, ...]:
        """B 3 H W in [0, 1] -> the people of each picture. Raises HintError as `frames.checked` and `read` do."""
        pictures = checked(images).detach().cpu()
        return tuple(self.frame(picture, settings) for picture in pictures)

    def frame(self, picture: Tensor, settings: OpenPoseSettings) -> Frame:
        """3 H W -> its people."""
        _, height, width = picture.shape
        found = self.detector.detect_poses(read_8bit(picture), include_hand=settings.hands, include_face=settings.face)
        people = tuple(person(one, width, height) for one in found[: settings.max_people])
        return Frame(people=people, width=width, height=height)


def person(found: Any, width: int, height: int) -> Person:
    """The package's PoseResult, in shares of the picture -> pixels."""
    return Person(
        body=points("body", found.body.keypoints, width, height),
        face=points("face", found.face, width, height),
        left_hand=points("left_hand", found.left_hand, width, height),
        right_hand=points("right_hand", found.right_hand, width, height),
    )


def points(part: str, found: Any, width: int, height: int) -> Points:
    """Keypoints or None -> N 3; what was found counts as certain, as the package draws it."""
    result = missing(part)
    if found is None or len(found) > LENGTHS[part]:
        return result
    for index, point in enumerate(found):
        if point is not None and point.x >= 0 and point.y >= 0:
            result[index] = point.x * width, point.y * height, 1
    return result.astype(np.float32)


def package() -> ModuleType:
    """controlnet_aux.open_pose, and the environment as it was."""
    before = os.environ.get(MADE_BY_IMPORT)
    module = aux_module("open_pose")
    if before is None:
        os.environ.pop(MADE_BY_IMPORT, None)
    return module


def part(kind: Any, path: Path) -> Any:
    """One of the package's Body, Hand and Face, which read the file themselves: they get a checked copy of its tensors.

    Raises WeightsError for a file that is damaged or does not fit.
    """
    try:
        copy = io.BytesIO()
        torch.save(read(path).tensors, copy)
        copy.seek(0)
        made = kind(copy)
    except (CheckpointError, LookupError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit OpenPose's {kind.__name__}: {error}") from error
    made.model.requires_grad_(False)
    return made


def load(paths: tuple[Path, ...]) -> OpenPoseDetector:
    """From the files of `needed`."""
    module = package()
    named = {path.name: path for path in paths}
    parts = (
        part(kind, named[one.file]) if one.file in named else None
        for kind, one in ((module.Body, BODY), (module.Hand, HAND), (module.Face, FACE))
    )
    return OpenPoseDetector(detector=module.OpenposeDetector(*parts))


def needed(settings: OpenPoseSettings) -> tuple[Weights, ...]:
    """The files for these settings."""
    return (BODY, *((HAND,) if settings.hands else ()), *((FACE,) if settings.face else ()))


def weights(file: str, sha256: str) -> Weights:
    """One file of lllyasviel's."""
    return Weights(
        file=file, size=0, sha256=sha256, licence=LICENCE, origin=Hub(repo="lllyasviel/Annotators", file=file)
    )


BODY = weights("body_pose_model.pth", "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746")
HAND = weights("hand_pose_model.pth", "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600")
FACE = weights("facenet.pth", "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43")
ENTRIES = (
    LearnedPreprocessor(
        name="openpose_cmu",
        node_id="PreprocessOpenPoseCMU",
        title="OpenPose (CMU)",
        group="poses and faces",
        description="People as OpenPose ControlNets know them, found by OpenPose itself. Not for commercial use.",
        settings=OpenPoseSettings,
        weights=(BODY, HAND, FACE),
        needs=needed,
        load=load,
        packages=PACKAGES,
        aliases=("OpenposeDetector", "openpose_full", "keypoints", "skeleton"),
        half=False,
        poses=True,
    ),
)
