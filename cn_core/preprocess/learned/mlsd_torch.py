"""M-LSD from lllyasviel's file: the same lines as `mlsd`, at any size and on any device.

Shapes: B batch, H W pixels, h w cells of two pixels each, K lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Settings, between
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor
from .mlsd import drawn
from .networks import NetworkDetector, padded
from .torch_file import filled

POOLING = 64
CELL = 2
"""Pixels in either direction."""
MOST_LINES = 200


@dataclass(frozen=True, kw_only=True)
class MLSDTorchSettings(Settings):
    """Which lines are drawn."""

    score_threshold: float = field(
        default=0.1, metadata=between(0.01, 1.0, "How sure the network has to be of a line; lower draws more lines.")
    )
    distance_threshold: float = field(
        default=0.1, metadata=between(0.01, 20.0, "Lines shorter than this many cells of two pixels are left out.")
    )


def line_map(network: Any, images: Tensor, settings: MLSDTorchSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W, 1 on lines of one pixel and 0 elsewhere."""
    height, width = images.shape[2:]
    whole = padded(images, POOLING) * 2 - 1
    ground = torch.full_like(whole[:, :1], 1 / 127.5 - 1)  # the fourth channel: ones among 0 to 255
    maps = network(torch.cat([whole, ground], dim=1)).float()  # B 9 h w
    pictures = [drawn(found(one, settings).cpu().numpy(), (height, width)) for one in maps]
    return torch.stack([torch.from_numpy(picture) for picture in pictures])[:, None] / 255


def found(maps: Tensor, settings: MLSDTorchSettings) -> Tensor:
    """The logits of line centres and their ends' offsets, 5 or more h w -> K 4: x and y in pixels of both ends."""
    scores, ends = maps[0].sigmoid(), maps[1:5]
    crests = scores * (F.max_pool2d(scores[None], 3, 1, 1)[0] == scores)
    best, places = crests.flatten().topk(min(MOST_LINES, crests.numel()))
    offsets = ends.flatten(1)[:, places].T  # K 4
    lengths = (offsets[:, :2] - offsets[:, 2:]).norm(dim=1)
    kept = (best > settings.score_threshold) & (lengths > settings.distance_threshold)
    centres = torch.stack([places % maps.shape[2], places // maps.shape[2]], dim=1)
    return (centres.repeat(1, 2) + offsets)[kept] * CELL


def load(paths: tuple[Path, ...]) -> NetworkDetector[MLSDTorchSettings]:
    """controlnet_aux's network (MobileNetV2, large)."""
    network = aux_module("mlsd.models.mbv2_mlsd_large").MobileV2_MLSD_Large()
    return NetworkDetector(network=filled(network, paths[0]), draw=line_map)


ENTRIES = (
    LearnedPreprocessor(
        name="mlsd_torch",
        node_id="PreprocessMLSDTorch",
        title="M-LSD Lines (torch)",
        group="lines",
        description="Straight white lines on black, from lllyasviel's file: at the picture's size, on the GPU too.",
        settings=MLSDTorchSettings,
        weights=(
            Weights(
                file="mlsd_large_512_fp32.pth",
                size=0,
                sha256="5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
                licence="Apache-2.0",
                origin=Hub(repo="lllyasviel/Annotators", file="mlsd_large_512_fp32.pth"),
            ),
        ),
        load=load,
        packages=PACKAGES,
        aliases=("MLSDdetector", "hough", "wireframe", "straight lines"),
        half=False,
    ),
)
