"""The hint for one evaluation: the right frames and part of it, at the size that the network wants, as features.

Shapes: B latents, H W latent, h w pixels. One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import comfy.controlnet
import comfy.utils
import torch
from torch import Tensor

from ..cn_core.image import resize_hint
from ..cn_core.modulation.frames import frame_indices
from ..cn_core.modulation.settings import Modulation
from .areas import Region, frame_window, regions
from .cache import Features, HintCache
from .sources.source import Call, ControlSource

logger = logging.getLogger(__name__)

ENCODED = 8
"""Latent sizes, areas or context windows whose encoded hints one run keeps on the device."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What of a hint an evaluation needs; two evaluations with the same place share its features."""

    size: tuple[int, int]
    """H, W of the latent."""
    frames: tuple[int, ...] | None
    """Which hint for each of the B latents; None: as the host repeats them."""
    regions: tuple[Region | None, ...] | None
    """The part for each chunk; None: all of it for all."""
    rows: tuple[int, int] | None
    """R and chunks, where it matters: a single hint for the whole picture fits any number of rows."""


def place(call: Call, hints: int, modulation: Modulation) -> Place:
    """Where an evaluation lies in the picture and the video."""
    size = (call.x.shape[-2], call.x.shape[-1])
    window = frame_window(call.options, call.batch)
    chosen = None
    if hints > 1 and (window is not None or modulation.frames != "cycle"):
        chosen = frame_indices(hints, call.batch, modulation.frames, window and window.frames)
    parts = regions(call.options, size)
    rows = None if hints == 1 and parts is None else (call.x.shape[0], call.chunks)
    return Place(size=size, frames=chosen, regions=parts, rows=rows)


def broadcast_rows(hints: Tensor, rows: int, chunks: int) -> Tensor:
    """`rows` hints in the host's order (taken in turn, the same for each chunk); a single hint stays single.

    As many hints as rows are taken as they are, even if that gives chunks different ones: so does the host.
    """
    return hints if hints.shape[0] == rows else comfy.controlnet.broadcast_image_to(hints, rows, chunks)


def fitted(
    hints: Tensor, target: Place, size: tuple[int, int] | None, modulation: Modulation, algorithm: str
) -> Tensor:
    """Hints (F 3 h w) for `target` at `size` in pixels; None: as they are, for networks that resize themselves.

    Returns R rows, or one for all.
    """
    pictures = hints if target.frames is None else hints[list(target.frames)]
    if target.regions is not None:
        return parts(pictures, target, size, modulation, algorithm)
    if size is not None:
        pictures = resized(pictures, size, modulation, algorithm)
    return pictures if target.rows is None else broadcast_rows(pictures, *target.rows)


def parts(
    pictures: Tensor, target: Place, size: tuple[int, int] | None, modulation: Modulation, algorithm: str
) -> Tensor:
    """For each chunk its part of pictures that are laid over the whole latent: R rows."""
    if target.regions is None or target.rows is None:
        raise ValueError("The parts of a hint are asked for, and there are none.")
    rows, chunks = target.rows
    batch = rows // chunks
    pictures = pictures[list(frame_indices(pictures.shape[0], batch, "cycle"))]
    scale_y, scale_x = (8, 8) if size is None else (size[0] / target.size[0], size[1] / target.size[1])
    found: list[Tensor] = []
    for part in target.regions:
        height, width = part.whole if part else target.size
        whole = resized(pictures, (round(scale_y * height), round(scale_x * width)), modulation, algorithm)
        found.append(part.cut(whole) if part else whole)
    together = torch.cat(found)
    return together if size is None else resized(together, size, modulation, algorithm)


def resized(pictures: Tensor, size: tuple[int, int], modulation: Modulation, algorithm: str) -> Tensor:
    """By the settings, else as the host does: cut to the proportions around the centre, nearest neighbours."""
    if modulation.resize is not None:
        return resize_hint(pictures, size, modulation.resize, modulation.resampler)
    return comfy.utils.common_upscale(pictures, size[1], size[0], algorithm, "center")


@dataclass(kw_only=True)
class Encoded:
    """The features of one control's hints during one run, backed by a cache that outlives it."""

    source: ControlSource
    cache: HintCache
    hints: tuple[Tensor, ...]
    """Each F 3 h w in [0, 1]; several only for union networks."""
    control_types: tuple[int, ...]
    modulation: Modulation
    algorithm: str
    """The host's, for resizing."""
    dtype: object
    """Of the model, on which some networks' own depends."""
    by_place: OrderedDict[Place, Features] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        settings = (self.modulation.resize, self.modulation.resampler, self.algorithm, self.dtype, self.control_types)
        self.contents = (tuple(map(self.cache.digest, self.hints)), settings)

    def features(self, call: Call) -> Features:
        """For one evaluation; encoded at most once for each place."""
        target = place(call, self.hints[0].shape[0], self.modulation)
        if target not in self.by_place:
            self.announce(target, call.batch)
            make = partial(self.encode, target, call.x.device)
            key = (self.contents, target, self.source.hint_size(*target.size))  # of latents, the VAE decides on that
            self.by_place[target] = self.cache.get(key, make, call.x.device)
            if len(self.by_place) > ENCODED:
                self.by_place.popitem(last=False)
        self.by_place.move_to_end(target)
        return self.by_place[target]

    def encode(self, target: Place, device: torch.device) -> Features:
        """Resize and encode.

        Several hints are repeated for every row before they are encoded, as the host does: at small sizes a convolution
        gives other bits for another batch.
        """
        size = self.source.hint_size(*target.size)
        pictures = [fitted(hint, target, size, self.modulation, self.algorithm).to(device) for hint in self.hints]
        return self.source.encode(pictures, self.control_types)

    def announce(self, target: Place, batch: int) -> None:
        """Say once in the log that hints and latents differ in number."""
        count = self.hints[0].shape[0]
        if not self.by_place and target.frames is None and count not in (1, batch):
            logger.warning(
                "%s: %d hints for a batch of %d latents; they are taken in order, cut off or begun again.",
                *(self.source.name, count, batch),
            )
