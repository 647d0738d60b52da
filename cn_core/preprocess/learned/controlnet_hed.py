"""HED as the soft-edge ControlNets of version 1.1 were trained with: lllyasviel's network, RGB, without a fuse layer.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..frames import each_frame
from ..settings import Settings, described
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor
from .fake_scribble import fake_scribble
from .networks import NetworkDetector, mean_of_sides, padded, safe
from .torch_file import filled

POOLING = 16
SAFE_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class SoftEdgeNetworkSettings(Settings):
    """How soft, or a scribble."""

    safe: bool = field(default=False, metadata=described("Three grey levels only, without the fine detail."))
    scribble: bool = field(default=False, metadata=described("The crests of the edges as thick strokes."))


def finished(edges: Tensor, settings: SoftEdgeNetworkSettings) -> Tensor:
    """B 1 H W, edges in [0, 1] -> the same as the settings want it."""
    edges = safe(edges, SAFE_STEPS) if settings.safe else edges
    if not settings.scribble:
        return edges
    return each_frame(edges.expand(-1, 3, -1, -1), lambda frame: fake_scribble(frame[..., 0]))


def hed_edges(network: Any, images: Tensor, settings: SoftEdgeNetworkSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 1 H W: the sigmoid of the mean of the five side outputs."""
    height, width = images.shape[2:]
    whole = padded(images, POOLING)
    return finished(mean_of_sides(network(whole * 255), whole)[..., :height, :width], settings)


def load(paths: tuple[Path, ...]) -> NetworkDetector[SoftEdgeNetworkSettings]:
    """controlnet_aux's network with lllyasviel's weights."""
    return NetworkDetector(network=filled(aux_module("hed").ControlNetHED_Apache2(), paths[0]), draw=hed_edges)


ENTRIES = (
    LearnedPreprocessor(
        name="controlnet_hed",
        node_id="PreprocessControlNetHED",
        title="ControlNet HED",
        group="lines",
        description="Soft white outlines on black by the network that soft-edge ControlNets 1.1 were trained with.",
        settings=SoftEdgeNetworkSettings,
        weights=(
            Weights(
                file="ControlNetHED.pth",
                size=29444406,
                sha256="5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa",
                licence="none named for the weights (code: Apache-2.0)",
                origin=Hub(repo="lllyasviel/Annotators", file="ControlNetHED.pth"),
            ),
        ),
        load=load,
        packages=PACKAGES,
        aliases=("softedge_hed", "HEDdetector", "scribble_hed", "fake scribble", "soft edge"),
        half=False,
    ),
)
