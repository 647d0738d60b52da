"""Surface normals by BAE (Bae et al. 2021, "Estimating and Exploiting the Aleatoric Uncertainty in Surface Normal
Estimation"), the hint of the normal ControlNets of version 1.1.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ..recolor import NoSettings
from ..weights import Hub, Weights
from .aux_package import PACKAGES, aux_module
from .detector import LearnedPreprocessor
from .networks import NetworkDetector, normalised, padded
from .torch_file import filled

POOLING = 32
ARCHITECTURE = SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
"""Of the weights of ScanNet; the ratios are for training alone."""


def normals(network: Any, images: Tensor, _: NoSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: (n + 1) / 2 of its finest normals."""
    height, width = images.shape[2:]
    finest = network(normalised(padded(images, POOLING)))[0][-1]  # B 4: normal, certainty
    return (finest[:, :3, :height, :width] + 1) / 2


def load(paths: tuple[Path, ...]) -> NetworkDetector[NoSettings]:
    """controlnet_aux's network (EfficientNet B5)."""
    network = aux_module("normalbae.nets.NNET").NNET(ARCHITECTURE)
    return NetworkDetector(network=filled(network, paths[0], inside="model"), draw=normals)


ENTRIES = (
    LearnedPreprocessor(
        name="normal",
        node_id="PreprocessNormalBAE",
        title="BAE Normals",
        group="depth, normals, motion",
        description="Surface normals as colours, the hint of normal-map ControlNets 1.1.",
        settings=NoSettings,
        weights=(
            Weights(
                file="scannet.pt",
                size=0,
                sha256="03dbf1600c51ee3d45c29f77b77bf1a3b7a24c3452dba62a4ae658f37330c209",
                licence="MIT",
                origin=Hub(repo="lllyasviel/Annotators", file="scannet.pt"),
            ),
        ),
        load=load,
        packages=PACKAGES,
        aliases=("normal_bae", "NormalBaeDetector", "normal map"),
        half=False,
    ),
)
