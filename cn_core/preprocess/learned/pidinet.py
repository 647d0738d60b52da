"""PiDiNet: soft edges (Su et al. 2021, "Pixel Difference Networks for Efficient Edge Detection").

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .controlnet_hed import SoftEdgeNetworkSettings, finished
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, padded
from .torch_file import filled

POOLING = 8


def pidinet_edges(network: Any, images: Tensor, settings: SoftEdgeNetworkSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W: its last output, which fuses the four others. It sees BGR."""
    height, width = images.shape[2:]
    return finished(network(padded(images.flip(1), POOLING))[-1][..., :height, :width], settings)


def load(paths: tuple[Path, ...]) -> NetworkDetector[SoftEdgeNetworkSettings]:
    """controlnet_aux's network (carv4, dilation, spatial attention) with the authors' weights."""
    return NetworkDetector(network=filled(aux_module("pidi.model").pidinet(), paths[0]), draw=pidinet_edges)


ENTRIES = (
    LearnedPreprocessor(
        name="pidinet",
        node_id="PreprocessPiDiNet",
        title="PiDiNet Soft Edge",
        group="lines",
        description="Soft white outlines on black, cleaner than HED's. Weights for research only.",
        settings=SoftEdgeNetworkSettings,
        weights=(
            Weights(
                file="table5_pidinet.pth",
                size=0,
                sha256="80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
                licence="research only (PiDiNet)",
                origin=Hub(repo="lllyasviel/Annotators", file="table5_pidinet.pth"),
            ),
        ),
        load=load,
        packages=PACKAGES,
        aliases=("softedge_pidinet", "PidiNetDetector", "scribble_pidinet", "soft edge"),
        half=False,
    ),
)
