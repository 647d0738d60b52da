"""Line art by networks: of photographs (Chan et al. 2022, "Learning to generate line drawings that convey geometry and
semantics") and of anime pictures (lllyasviel's pix2pix U-Net).

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..recolor import NoSettings
from ..settings import Settings, described
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, padded
from .torch_file import filled

POOLING = 8
"""Four would be enough, but the network reflects its borders, and one pixel has none."""
RESIDUAL_BLOCKS = 3
TILE = 256
"""The U-Net of anime pictures halves its input eight times."""


@dataclass(frozen=True, kw_only=True)
class LineartRealisticSettings(Settings):
    """Which of the two networks draws."""

    coarse: bool = field(default=False, metadata=described("Fewer and rougher lines, from weights of their own."))


def line_art(network: Any, images: Tensor, _: LineartRealisticSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W, white lines on black: it draws black on white."""
    height, width = images.shape[2:]
    return 1 - network(padded(images, POOLING))[..., :height, :width]


def anime_line_art(network: Any, images: Tensor, _: NoSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W, white lines on black: it sees pictures in [-1, 1], stretched to its tiles."""
    height, width = images.shape[2:]
    size = [TILE * ceil(side / TILE) for side in (height, width)]
    drawn = network(F.interpolate(images, size=size, mode="bicubic").clamp(0, 1) * 2 - 1)
    return (1 - F.interpolate(drawn, size=(height, width), mode="bicubic")) / 2


def load_realistic(paths: tuple[Path, ...]) -> NetworkDetector[LineartRealisticSettings]:
    """controlnet_aux's generator with the weights of one of the two files."""
    network = aux_module("lineart").Generator(3, 1, RESIDUAL_BLOCKS)
    return NetworkDetector(network=filled(network, paths[0]), draw=line_art)


def load_anime(paths: tuple[Path, ...]) -> NetworkDetector[NoSettings]:
    """controlnet_aux's U-Net."""
    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    network = aux_module("lineart_anime").UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)
    return NetworkDetector(network=filled(network, paths[0]), draw=anime_line_art)


FINE = Weights(
    file="sk_model.pth",
    size=0,
    sha256="c686ced2a666b4850b4bb6ccf0748031c3eda9f822de73a34b8979970d90f0c6",
    licence="MIT",
    origin=Hub(repo="lllyasviel/Annotators", file="sk_model.pth"),
)
COARSE = Weights(
    file="sk_model2.pth",
    size=0,
    sha256="30a534781061f34e83bb9406b4335da4ff2616c95d22a585c1245aa8363e74e0",
    licence="MIT",
    origin=Hub(repo="lllyasviel/Annotators", file="sk_model2.pth"),
)
ENTRIES = (
    LearnedPreprocessor(
        name="lineart_realistic",
        node_id="PreprocessLineartRealistic",
        title="Realistic Line Art",
        group="lines",
        description="Photographs as drawings, white lines on black: the hint of line-art ControlNets.",
        settings=LineartRealisticSettings,
        weights=(FINE, COARSE),
        needs=lambda settings: (COARSE if settings.coarse else FINE,),
        load=load_realistic,
        packages=PACKAGES,
        aliases=("lineart", "lineart_coarse", "LineartDetector", "line art"),
        half=False,
    ),
    LearnedPreprocessor(
        name="lineart_anime",
        node_id="PreprocessLineartAnime",
        title="Anime Line Art",
        group="lines",
        description="Anime pictures as drawings, white lines on black: the hint of anime line-art ControlNets.",
        settings=NoSettings,
        weights=(
            Weights(
                file="netG.pth",
                size=0,
                sha256="ccabdcc3f5cf3c07cf65d58776acb21df7dfda825cdc70c9766a93fd62bfc488",
                licence="none named for the weights (code: Apache-2.0)",
                origin=Hub(repo="lllyasviel/Annotators", file="netG.pth"),
            ),
        ),
        load=load_anime,
        packages=PACKAGES,
        aliases=("LineartAnimeDetector", "manga", "line art"),
        half=False,
    ),
)
