"""TEED, soft edges from 59,000 weights (Soria et al. 2023, "Tiny and Efficient Model for the Edge Detection
Generalization"), and AnyLine (TheMistoAI), which lays line art over them.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..frames import Frame, each_frame
from ..lineart import LineartSettings, lines
from ..settings import Settings, between
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, mean_of_sides, padded, safe
from .torch_file import filled

POOLING = 8


@dataclass(frozen=True, kw_only=True)
class TEEDSettings(Settings):
    """How soft."""

    safe_steps: int = field(
        default=2, metadata=between(0, 10, "Number of grey levels above black, against hidden detail; 0: all.")
    )


@dataclass(frozen=True, kw_only=True)
class AnyLineSettings(Settings):
    """What is laid over TEED's edges; the defaults are AnyLine's."""

    gaussian_sigma: float = field(
        default=2.0, metadata=between(0.1, 100.0, "Blur of the surroundings in pixels; more makes fine lines wider.")
    )
    intensity_threshold: int = field(
        default=3, metadata=between(0, 16, "Fainter lines do not count for the evening out.")
    )
    smallest: int = field(
        default=36, metadata=between(0, 10000, "Fine lines of fewer connected pixels than this are left out.")
    )


def teed_edges(network: Any, images: Tensor, settings: TEEDSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W: the sigmoid of the mean of its four outputs."""
    height, width = images.shape[2:]
    whole = padded(images, POOLING)
    return safe(mean_of_sides(network(whole * 255), whole)[..., :height, :width], settings.safe_steps)


def anyline(network: Any, images: Tensor, settings: AnyLineSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: 1 - (1 - TEED's edges) (1 - fine line art without specks)."""
    edges = teed_edges(network, images, TEEDSettings())
    art = each_frame(images, partial(fine_lines, settings=settings))
    return 1 - (1 - edges) * (1 - art)


def fine_lines(frame: Frame, settings: AnyLineSettings) -> Frame:
    """H W 3 float32 -> H W float32: line art without what has fewer pixels that touch by their sides."""
    import cv2

    art = lines(
        frame,
        LineartSettings(gaussian_sigma=settings.gaussian_sigma, intensity_threshold=settings.intensity_threshold),
    )
    drawn = (art >= 1 / 255).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(drawn, connectivity=4)
    large = statistics[:, cv2.CC_STAT_AREA] >= settings.smallest
    large[0] = False  # the ground
    return np.where(large[np.asarray(labels, np.intp)], art, np.float32(0))


def network(path: Path) -> torch.nn.Module:
    """controlnet_aux's network with the weights of a file."""
    return filled(aux_module("teed.ted").TED(), path)


def load_teed(paths: tuple[Path, ...]) -> NetworkDetector[TEEDSettings]:
    """TEED by itself."""
    return NetworkDetector(network=network(paths[0]), draw=teed_edges)


def load_anyline(paths: tuple[Path, ...]) -> NetworkDetector[AnyLineSettings]:
    """TEED as TheMistoAI trained it further, under line art."""
    return NetworkDetector(network=network(paths[0]), draw=anyline)


ENTRIES = (
    LearnedPreprocessor(
        name="teed",
        node_id="PreprocessTEED",
        title="TEED Soft Edge",
        group="lines",
        description="Soft white outlines on black by a tiny network, fast on any machine.",
        settings=TEEDSettings,
        weights=(
            Weights(
                file="7_model.pth",
                size=0,
                sha256="b9037964149c55156c6adbffdfbd7e8ca7d2ef2a4d90573520efa7f3a1aacf06",
                licence="MIT",
                origin=Hub(repo="bdsqlsz/qinglong_controlnet-lllite", file="Annotators/7_model.pth"),
            ),
        ),
        load=load_teed,
        packages=PACKAGES,
        aliases=("softedge_teed", "TEEDdetector", "soft edge"),
        half=False,
    ),
    LearnedPreprocessor(
        name="anyline",
        node_id="PreprocessAnyLine",
        title="AnyLine",
        group="lines",
        description="Outlines and fine line art in one, white on black, the hint of MistoLine and of line ControlNets.",
        settings=AnyLineSettings,
        weights=(
            Weights(
                file="MTEED.pth",
                size=0,
                sha256="a3c2d8a8ce9422555c787160bd46362d761325a565333c0e3f6a53e0bae2abdb",
                licence="OpenRAIL++ (code: MIT)",
                origin=Hub(repo="TheMistoAI/MistoLine", file="Anyline/MTEED.pth"),
            ),
        ),
        load=load_anyline,
        packages=PACKAGES,
        aliases=("softedge_anyline", "AnylineDetector", "mistoline", "line art"),
        half=False,
    ),
)
