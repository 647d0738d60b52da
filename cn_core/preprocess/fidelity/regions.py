"""How well areas lie on each other: intersection over union (Jaccard). Shapes: H W pixels, K colours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..colors import labels
from ..frames import Frame


def iou(found: Frame, wanted: Frame) -> float:
    """Of H W bool; nothing on either side is a perfect match."""
    union = int((found | wanted).sum())
    return float((found & wanted).sum() / union) if union else 1.0


def class_map(picture: Frame, palette: Frame) -> Frame:
    """H W 3 in [0, 1], K 3 uint8 -> H W: the class of each pixel, by the nearest colour."""
    pixels = np.rint(picture * 255).astype(np.uint8)
    return labels(pixels.reshape(-1, 3), palette).reshape(picture.shape[:2])


def class_ious(found: Frame, wanted: Frame) -> Mapping[int, float]:
    """Of H W classes: the IoU of each class that occurs on either side."""
    return {int(one): iou(found == one, wanted == one) for one in np.union1d(found, wanted)}


def mean_iou(found: Frame, wanted: Frame) -> float:
    """Of H W classes: the mean over the classes that occur on either side (mIoU)."""
    return float(np.mean(list(class_ious(found, wanted).values())))
