"""ZoeDepth, indoor and outdoor (Bhat et al. 2023, "ZoeDepth: Zero-shot Transfer by Combining Relative and Metric
Depth"), through transformers.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from ..settings import between, one_of
from .depth_maps import DepthDetector, DepthSettings, depth_maps, network_size, resized
from .detector import LearnedPreprocessor
from .networks import normalised
from .transformers_folder import PACKAGES, from_folder, repository

Model = Literal["indoor", "indoor and outdoor"]
PATCH = 32
HALVES = (0.5, 0.5, 0.5)
FAR_TO_NEAR = (15, 98)
"""Percentiles of nearness that become black and white: of the distance these are 85 and 2, as ControlNets know it."""
WEIGHTS = {
    "indoor": repository("Intel/zoedepth-nyu", "MIT"),
    "indoor and outdoor": repository("Intel/zoedepth-nyu-kitti", "MIT"),
}


@dataclass(frozen=True, kw_only=True)
class ZoeSettings(DepthSettings):
    """Which network looks, and how closely."""

    model: Model = field(
        default="indoor", metadata=one_of(get_args(Model), "What it was trained on; indoor is what ControlNets know.")
    )
    short_side: int = field(
        default=384,
        metadata=between(
            PATCH, 1536, "Pixels that the network sees of the shorter side; trained with 384.", step=PATCH
        ),
    )


def nearness(network: Any, images: Tensor, settings: ZoeSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B H W: the network gives metres, of pictures with mirrored margins."""
    height, width = images.shape[2:]
    top, left = (min(int(3 * sqrt(side / 2)), side - 1) for side in (height, width))
    framed = F.pad(images.float(), (left, left, top, top), mode="reflect")
    rows, columns = framed.shape[2:]
    seen = resized(framed, network_size(rows, columns, settings.short_side, PATCH))
    metres = network(normalised(seen, HALVES, HALVES).to(images.dtype)).predicted_depth.float()[:, None]  # B 1 h w
    whole = F.interpolate(metres, size=(rows, columns), mode="bicubic")[:, 0]
    return -whole[:, top : top + height, left : left + width]


def zoe_maps(levels: Tensor, settings: ZoeSettings) -> Tensor:
    """B 1 H W, larger is nearer -> B 3 H W in [0, 1]."""
    return depth_maps(levels, settings, FAR_TO_NEAR)


def load(paths: tuple[Path, ...]) -> DepthDetector[ZoeSettings]:
    """The network."""
    from transformers import ZoeDepthForDepthEstimation

    return DepthDetector(network=from_folder(ZoeDepthForDepthEstimation, paths), look=nearness, finish=zoe_maps)


ENTRIES = (
    LearnedPreprocessor(
        name="depth_zoe",
        node_id="PreprocessDepthZoe",
        title="ZoeDepth",
        group="depth, normals, motion",
        description="How near things are, near is white, in even steps of distance.",
        settings=ZoeSettings,
        weights=tuple(file for files in WEIGHTS.values() for file in files),
        needs=lambda settings: WEIGHTS[settings.model],
        load=load,
        together=zoe_maps,
        packages=PACKAGES,
        aliases=("Zoe", "ZoeDetector", "depth map"),
        half=False,
    ),
)
