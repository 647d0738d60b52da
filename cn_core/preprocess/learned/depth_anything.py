"""Depth Anything (Yang et al. 2024), versions 1 and 2, through transformers.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from ..settings import between, one_of
from .depth_maps import DepthDetector, DepthSettings, depth_maps, network_size, resized
from .detector import LearnedPreprocessor
from .networks import normalised
from .transformers_folder import PACKAGES, from_folder, repository

Model = Literal["v2 small", "v2 base", "v2 large", "v1 small", "v1 base", "v1 large"]
PATCH = 14
TRAINED_SIDE = 518
FREE, RESTRICTED = "Apache-2.0", "CC-BY-NC-4.0 (not commercial)"
WEIGHTS = {
    "v2 small": repository("depth-anything/Depth-Anything-V2-Small-hf", FREE),
    "v2 base": repository("depth-anything/Depth-Anything-V2-Base-hf", RESTRICTED),
    "v2 large": repository("depth-anything/Depth-Anything-V2-Large-hf", RESTRICTED),
    "v1 small": repository("LiheYoung/depth-anything-small-hf", FREE),
    "v1 base": repository("LiheYoung/depth-anything-base-hf", FREE),
    "v1 large": repository("LiheYoung/depth-anything-large-hf", FREE),
}


@dataclass(frozen=True, kw_only=True)
class DepthAnythingSettings(DepthSettings):
    """Which network looks, and how closely."""

    model: Model = field(
        default="v2 small",
        metadata=one_of(
            get_args(Model), "Larger is slower and finds more detail. v2 base and v2 large are not for commercial use."
        ),
    )
    short_side: int = field(
        default=TRAINED_SIDE,
        metadata=between(
            PATCH,
            2072,
            "Pixels that the network sees of the shorter side; trained with 518, more brings detail.",
            step=14,
        ),
    )


def nearness(network: Any, images: Tensor, settings: DepthAnythingSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B h w: the network gives inverse depth."""
    height, width = images.shape[2:]
    seen = resized(images.float(), network_size(height, width, settings.short_side, PATCH)).to(images.dtype)
    return network(normalised(seen)).predicted_depth


def load(paths: tuple[Path, ...]) -> DepthDetector[DepthAnythingSettings]:
    """The network of one of the sizes."""
    from transformers import DepthAnythingForDepthEstimation

    return DepthDetector(network=from_folder(DepthAnythingForDepthEstimation, paths), look=nearness, finish=depth_maps)


ENTRIES = (
    LearnedPreprocessor(
        name="depth",
        node_id="PreprocessDepth",
        title="Depth",
        group="depth, normals, motion",
        description="How near things are, near is white: Depth Anything, the hint of depth ControlNets.",
        settings=DepthAnythingSettings,
        weights=tuple(file for files in WEIGHTS.values() for file in files),
        needs=lambda settings: WEIGHTS[settings.model],
        load=load,
        together=depth_maps,
        packages=PACKAGES,
        aliases=("Depth Anything", "depth_anything_v2", "depth_anything", "depth map"),
    ),
)
