"""MiDaS, DPT-hybrid (Ranftl et al. 2021, "Vision Transformers for Dense Prediction"), through transformers: the depth
that the first depth ControlNets were trained with.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from .depth_maps import DepthDetector, DepthSettings, depth_maps, resized
from .detector import LearnedPreprocessor
from .networks import normalised
from .transformers_folder import PACKAGES, from_folder, repository

HALVES = (0.5, 0.5, 0.5)


def nearness(network: Any, images: Tensor, _: DepthSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B h w: the network sees a square and gives inverse depth."""
    side = int(network.config.image_size)
    seen = normalised(resized(images.float(), (side, side)), HALVES, HALVES).to(images.dtype)
    return network(seen).predicted_depth


def load(paths: tuple[Path, ...]) -> DepthDetector[DepthSettings]:
    """The network."""
    from transformers import DPTForDepthEstimation

    return DepthDetector(network=from_folder(DPTForDepthEstimation, paths), look=nearness, finish=depth_maps)


ENTRIES = (
    LearnedPreprocessor(
        name="depth_midas",
        node_id="PreprocessDepthMiDaS",
        title="MiDaS Depth",
        group="depth, normals, motion",
        description="How near things are, near is white: the depth that the first depth ControlNets were trained with.",
        settings=DepthSettings,
        weights=repository("Intel/dpt-hybrid-midas", "Apache-2.0"),
        load=load,
        together=depth_maps,
        half=False,
        packages=PACKAGES,
        aliases=("MiDaS", "MidasDetector", "DPT", "depth map"),
    ),
)
