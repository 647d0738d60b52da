"""Drawings of lines on a new grid: no line is lost or broken, and those of one pixel stay about that wide.

Shapes: C channels, h w pixels before, H W pixels after; N pixels of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
"""Height and width in pixels."""

LEFT_OF_LINES = 0.5
"""Share of its light that a drawing of thin lines keeps at most when everything thin is taken out."""
NORTH, SOUTH, EAST, WEST = 2, 6, 0, 4
"""Places in the ring of a pixel's eight neighbours, which runs from the east over the north."""
NEIGHBOURS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
"""Offsets (down, right) to a pixel itself and to those neighbours that make each pair of pixels occur once."""


def is_thin(level: Tensor, shrinks: float) -> bool:
    """Whether h w is mostly lines so thin that shrinking by this factor endangers them (up to 1: of two pixels).

    Measured is what a grey opening leaves: whatever is somewhere as wide as its window.
    """
    light = level.max() - level if is_dark_on_light(level) else level - level.min()
    opened = widest(light, 2 * ceil(max(shrinks, 1.0)) + 1)
    return bool(opened.sum() < LEFT_OF_LINES * light.sum())


def is_dark_on_light(level: Tensor) -> bool:
    """Whether most of h w is bright."""
    return bool(level.mean() > (level.max() + level.min()) / 2)


def widest(level: Tensor, window: int) -> Tensor:
    """h w without all that is bright and narrower than a square window: a grey opening."""
    return spread(-spread(-level, window), window)


def spread(level: Tensor, window: int) -> Tensor:
    """h w -> h w: the largest value in a square window around each pixel."""
    rows = F.max_pool2d(level[None], (window, 1), 1, (window // 2, 0))
    return F.max_pool2d(rows, (1, window), 1, (0, window // 2))[0]


def extreme(picture: Tensor, size: Size) -> Tensor:
    """C h w -> C H W: soft lines keep all their contrast, for each pixel takes the extreme of what it covers."""
    if is_dark_on_light(picture):
        return -F.adaptive_max_pool2d(-picture, size)
    return F.adaptive_max_pool2d(picture, size)


def redrawn(drawing: Tensor, size: Size) -> Tensor:
    """Lines, h w bool -> H W bool, one pixel wide; what is wide in both directions stays so."""
    solid = widest(drawing.float(), 3)[None, None]
    return thinned(traced(thinned(drawing), size)) | (F.interpolate(solid, size=size, mode="nearest-exact")[0, 0] > 0)


def traced(drawing: Tensor, size: Size) -> Tensor:
    """h w bool -> H W bool: each pixel where it falls on the new grid, and straight lines between neighbours."""
    scale = torch.tensor([new / old for new, old in zip(size, drawing.shape, strict=True)], device=drawing.device)
    steps = ceil(max(scale.tolist()))
    result = torch.zeros(size, dtype=torch.bool, device=drawing.device)
    limits = torch.tensor(size, device=drawing.device) - 1
    for starts, offset in joined(drawing):
        for step in range(max(steps, 1) if offset.any() else 1):
            rows, columns = ((starts + 0.5 + offset * step / steps) * scale).long().minimum(limits).unbind(1)
            result[rows, columns] = True
    return result


def joined(drawing: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(pixels N 2, offset to the neighbour that each is joined with); diagonally only where no corner joins them."""
    height, width = drawing.shape
    for down, right in NEIGHBOURS:
        rows, columns = slice(0, height - down), slice(max(-right, 0), width - max(right, 0))
        below, beside = slice(down, height), slice(max(right, 0), width - max(-right, 0))
        both = drawing[rows, columns] & drawing[below, beside]
        if down and right:
            both = both & ~drawing[rows, beside] & ~drawing[below, columns]
        offset = torch.tensor([down, right], device=drawing.device)
        yield both.nonzero() + torch.tensor([0, max(-right, 0)], device=drawing.device), offset


def thinned(drawing: Tensor) -> Tensor:
    """h w bool with one layer less on each side, where that neither breaks nor shortens a line.

    Rosenfeld's parallel thinning (1975), one round: in turn the northern, southern, eastern and western border pixels
    whose removal changes no connection.
    """
    width = drawing.shape[1] + 2
    ring = torch.tensor(
        [1, 1 - width, -width, -width - 1, -1, width - 1, width, width + 1], device=drawing.device
    )  # from the east over the north
    weights, spare = 2 ** torch.arange(8, device=drawing.device), removable().to(drawing.device)
    flat = F.pad(drawing, (1, 1, 1, 1)).flatten()
    for side in (NORTH, SOUTH, EAST, WEST):
        pixels = flat.nonzero()[:, 0]
        codes = (flat[pixels[:, None] + ring] * weights).sum(dim=1)
        flat[pixels[spare[codes] & ((codes >> side) & 1 == 0)]] = False
    return flat.view(-1, width)[1:-1, 1:-1]


def removable() -> Tensor:
    """256 bool, for each ring of neighbours: the pixel is no end of a line, and its removal changes no connection.

    Yokoi's number of 8-connected parts around a pixel, which is 1 then.
    """
    ring = (torch.arange(256)[:, None] >> torch.arange(8)) & 1  # 256 8
    empty = 1 - ring
    parts = sum(
        empty[:, side] * (1 - empty[:, (side + 1) % 8] * empty[:, (side + 2) % 8])
        for side in (EAST, NORTH, WEST, SOUTH)
    )
    return (torch.as_tensor(parts) == 1) & (ring.sum(dim=1) > 1)
