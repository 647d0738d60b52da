"""Depth from two pictures that were taken side by side: a stereo pair, or frames of a camera that moves sideways.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import HintError
from .flow import dis, grey
from .frames import Frame, checked, in_parallel
from .inpaint import paired
from .settings import Settings, between, one_of

Method = Literal["SGBM", "flow"]
SHORTEST = 16
"""SGBM wants pictures of at least this many rows."""


@dataclass(frozen=True, kw_only=True)
class StereoSettings(Settings):
    """How the pictures are matched."""

    method: Method = field(
        default="SGBM",
        metadata=one_of(
            get_args(Method), "SGBM: for pairs whose rows match. flow: for hand-held ones; knows no largest disparity."
        ),
    )
    max_disparity: int = field(
        default=64,
        metadata=between(
            16, 512, "How far the nearest things lie apart in the two pictures, in pixels; SGBM only.", step=16
        ),
    )
    block: int = field(
        default=5, metadata=between(1, 21, "Side of the patches that are compared, odd, in pixels; SGBM only.", step=2)
    )
    percentile: float = field(
        default=99.0,
        metadata=between(51.0, 100.0, "What is nearer than so many percent of all pixels is white.", step=0.1),
    )


def stereo_depth(left: Tensor, right: Tensor, settings: StereoSettings) -> tuple[Tensor, Tensor]:
    """B 3 H W twice in [0, 1] -> (B 3 H W in [0, 1], near is white, one range for the batch; B H W, 1 where matched).

    What is not matched gets the farther one of its neighbours in the row. Raises HintError for sizes that differ.
    """
    if checked(left).shape[2:] != checked(right).shape[2:]:
        raise HintError(
            f"The left picture is {left.shape[3]}x{left.shape[2]} and the right one {right.shape[3]}x{right.shape[2]}; "
            "a pair has equal sizes. Resize one."
        )
    count = paired(len(left), len(right), "left pictures", "right pictures")
    lefts, rights = (side.detach().cpu().expand(count, -1, -1, -1) for side in (left, right))
    disparities = np.empty((count, *left.shape[2:]), np.float32)
    matched = np.empty(disparities.shape, np.bool_)

    def work(index: int) -> None:
        found = disparity(grey(lefts[index]), grey(rights[index]), settings)
        matched[index] = np.isfinite(found)
        disparities[index] = filled(found)

    in_parallel(work, count)
    low, high = np.percentile(disparities, (100 - settings.percentile, settings.percentile))
    levels = torch.from_numpy(((disparities - low) / ((high - low) or 1)).clip(0, 1))
    depth = levels[:, None].to(device=left.device, dtype=left.dtype).repeat(1, 3, 1, 1)
    return depth, torch.from_numpy(matched).to(left.device).float()


def disparity(left: Frame, right: Frame, settings: StereoSettings) -> Frame:
    """H W uint8 twice -> H W float32 in pixels; NaN where nothing was matched."""
    if settings.method == "SGBM":
        return semi_global(left, right, settings)
    there, back = dis(left, right, "medium"), dis(right, left, "medium")
    width = left.shape[1]
    columns = np.clip(np.rint(np.arange(width) + there[..., 0]), 0, width - 1).astype(np.intp)
    returned = np.take_along_axis(back[..., 0], columns, axis=1)
    return np.where(np.abs(there[..., 0] + returned) <= 1, -there[..., 0], np.float32(np.nan))


def semi_global(left: Frame, right: Frame, settings: StereoSettings) -> Frame:
    """H W uint8 twice -> H W float32: semi-global block matching (Hirschmüller 2008), with its usual penalties."""
    import cv2

    height, width = left.shape
    span, block = settings.max_disparity // 16 * 16, settings.block | 1
    below, beside = max(SHORTEST + block - height, 0), max(SHORTEST + block - width, 0)
    pair = [cv2.copyMakeBorder(one, 0, below, span, beside, cv2.BORDER_REPLICATE) for one in (left, right)]
    matcher = cv2.StereoSGBM.create(
        0,
        span,
        block,
        P1=8 * block**2,
        P2=32 * block**2,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
    )
    found = matcher.compute(pair[0], pair[1])[:height, span : span + width].astype(np.float32) / 16
    found[found < 0] = np.nan
    return found


def filled(found: Frame) -> Frame:
    """H W with NaN -> H W without: the smaller of the next values to the left and to the right; 0 in empty rows."""
    rightward, leftward = carried(found), carried(found[:, ::-1])[:, ::-1]
    return np.nan_to_num(np.fmin(rightward, leftward))


def carried(found: Frame) -> Frame:
    """H W -> H W: each NaN takes the last value before it in its row, if there is one."""
    places = np.where(np.isfinite(found), np.arange(found.shape[1]), 0)
    return np.take_along_axis(found, np.maximum.accumulate(places, axis=1), axis=1)
