"""Masks of people: BlazePose's own of each person, or MediaPipe's selfie segmentation; sharpened by a guided filter.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import Tensor, nn

from ..frames import Frame, each_frame
from ..settings import Settings, between, described, one_of
from ..weights import Weights
from .blaze import uncropped
from .bodies import Body, BodyFinder
from .detector import LearnedPreprocessor
from .litert import PACKAGE, Network
from .mediapipe import POSE_DETECTION, POSE_LANDMARKS, SELFIE

logger = logging.getLogger(__name__)

PersonNetwork = Literal["pose", "selfie"]
POSE = (POSE_DETECTION, POSE_LANDMARKS["heavy"])
SIDE = 256
"""Of what the selfie network sees, in pixels."""
FLAT = 1e-4
"""Variance of the picture's brightness below which the mask is smoothed, not sharpened."""
STEEPER = 2
"""The filter's blur where the picture is flat is undone by so much contrast."""
FAINT = 0.5
"""A mask that is nowhere brighter shows nobody."""


@dataclass(frozen=True, kw_only=True)
class PersonMaskSettings(Settings):
    """Which network, and how sharp the mask is."""

    network: PersonNetwork = field(
        default="pose",
        metadata=one_of(
            get_args(PersonNetwork),
            "pose: people one by one, without what they hold. selfie: a portrait in a tenth of the time.",
        ),
    )
    min_confidence: float = field(
        default=0.5, metadata=between(0.05, 1.0, "pose: how certain it has to be that somebody is there.")
    )
    small: bool = field(
        default=True, metadata=described("pose: look at parts of the picture as well, for several and small people.")
    )
    sharpen: int = field(
        default=4, metadata=between(0, 64, "Radius in pixels in which outlines of the picture pull the mask; 0: off.")
    )
    threshold: float = field(
        default=0.0, metadata=between(0.0, 1.0, "White from this certainty on, black below; 0 keeps soft borders.")
    )


@dataclass(frozen=True, kw_only=True)
class PersonMaskDetector:
    """The networks of one choice, in LiteRT on the CPU."""

    network: Network | BodyFinder

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """None."""
        return ()

    def __call__(self, images: Tensor, settings: PersonMaskSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W, 1 on people and 0 elsewhere; pictures without people are said in the log."""
        masks = each_frame(images, lambda frame: self.mask(frame, settings))
        if black := [index for index, mask in enumerate(masks) if mask.max() <= FAINT]:
            logger.warning("The person mask shows nobody in pictures %s.", black)
        return masks

    def mask(self, frame: Frame, settings: PersonMaskSettings) -> Frame:
        """H W 3 -> H W float32 in [0, 1]."""
        import cv2

        if isinstance(self.network, BodyFinder):
            mask = all_bodies(self.network.find(frame, settings.small, settings.min_confidence), *frame.shape[:2])
        else:
            mask = portrait(self.network, frame)
        if settings.sharpen:
            mask = guided(mask, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), settings.sharpen)
            mask = STEEPER * (mask - 0.5) + 0.5
        mask = mask.clip(0, 1)
        return (mask >= settings.threshold).astype(np.float32) if settings.threshold else mask


def all_bodies(bodies: list[Body], height: int, width: int) -> Frame:
    """H W float32: the masks of all people together."""
    mask = np.zeros((height, width), np.float32)
    for body in bodies:
        np.maximum(mask, uncropped(body.mask, body.square, height, width), out=mask)
    return mask


def portrait(network: Network, frame: Frame) -> Frame:
    """H W 3 -> H W float32: the selfie network's mask."""
    import cv2

    height, width = frame.shape[:2]
    way = cv2.INTER_AREA if min(height, width) > SIDE else cv2.INTER_LINEAR
    (coarse,) = network(cv2.resize(frame, (SIDE, SIDE), interpolation=way))
    return cv2.resize(coarse[..., 0], (width, height), interpolation=cv2.INTER_CUBIC)


def guided(mask: Frame, guide: Frame, radius: int) -> Frame:
    """H W, H W -> H W: the guided filter (He 2013, equations 5, 6 and 8)."""
    import cv2

    window = (2 * radius + 1, 2 * radius + 1)
    mean, guide_mean = cv2.blur(mask, window), cv2.blur(guide, window)
    covariance = cv2.blur(cv2.multiply(guide, mask), window) - guide_mean * mean
    variance = cv2.blur(cv2.multiply(guide, guide), window) - guide_mean * guide_mean
    a = covariance / (np.maximum(variance, 0) + np.float32(FLAT))
    b = mean - a * guide_mean
    return cv2.blur(a, window) * guide + cv2.blur(b, window)


def needed(settings: PersonMaskSettings) -> tuple[Weights, ...]:
    """The files for these settings."""
    return POSE if settings.network == "pose" else (SELFIE,)


def load(paths: tuple[Path, ...]) -> PersonMaskDetector:
    """From the files of `needed`."""
    networks = [Network(path) for path in paths]
    if len(networks) == 1:
        return PersonMaskDetector(network=networks[0])
    return PersonMaskDetector(network=BodyFinder(detector=networks[0], landmarks=networks[1]))


ENTRIES = (
    LearnedPreprocessor(
        name="person_mask",
        node_id="PreprocessPersonMask",
        title="Person Mask",
        group="regions",
        description="White people on black.",
        settings=PersonMaskSettings,
        weights=(*POSE, SELFIE),
        needs=needed,
        load=load,
        packages=(PACKAGE,),
        aliases=("selfie segmentation", "MediaPipe", "matting", "silhouette", "background"),
    ),
)
