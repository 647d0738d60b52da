"""Pictures in two colours: by brightness (binary) or by one channel of colour (threshold).

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from .frames import Frame, each_8bit, strongest, weakest
from .settings import Settings, between, one_of

Method = Literal["fixed", "Otsu"]
Channel = Literal["weakest", "strongest"]


@dataclass(frozen=True, kw_only=True)
class BinarySettings(Settings):
    """Where white begins."""

    method: Method = field(
        default="fixed",
        metadata=one_of(get_args(Method), "fixed: at the threshold. Otsu: found for each picture by itself."),
    )
    threshold: int = field(default=100, metadata=between(0, 255, "Brighter than this is white; Otsu does not use it."))


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings(Settings):
    """As sd-webui-controlnet's threshold, which looks at the weakest channel."""

    channel: Channel = field(
        default="weakest",
        metadata=one_of(
            get_args(Channel), "weakest: white where red, green and blue are above the threshold. strongest: any."
        ),
    )
    threshold: int = field(default=127, metadata=between(0, 255, "Above this is white."))


def binary(images: Tensor, settings: BinarySettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W of 0 and 1."""
    return each_8bit(images, lambda image: binarised(image, settings))


def binarised(image: Frame, settings: BinarySettings) -> Frame:
    """H W 3 uint8 -> H W uint8."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    otsu = cv2.THRESH_OTSU if settings.method == "Otsu" else 0
    return cv2.threshold(grey, settings.threshold, 255, cv2.THRESH_BINARY | otsu)[1]


def threshold(images: Tensor, settings: ThresholdSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W of 0 and 1."""
    return each_8bit(images, lambda image: above(image, settings))


def above(image: Frame, settings: ThresholdSettings) -> Frame:
    """H W 3 uint8 -> H W uint8."""
    import cv2

    level = (weakest if settings.channel == "weakest" else strongest)(image)
    return cv2.threshold(level, settings.threshold, 255, cv2.THRESH_BINARY)[1]
