"""Pictures as few colours: a grid of them, a palette of their own, or that of a segmentation data set.

Shapes: B batch, H W pixels, N pixels of a list, K colours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .frames import Frame, each_8bit, each_frame
from .palettes import PALETTES, colours
from .settings import Settings, between, one_of

SAMPLED = 64
"""A palette is sought on a picture of at most so many pixels a side."""
CHUNK = 1 << 14
FEW = 32
"""Up to so many colours, looking up all pixels is faster than finding which colours occur."""
ROUNDS = (3, 20, 0.5)
"""Of k-means: at most 20, or until no colour moves by more than half a level (3: either)."""


@dataclass(frozen=True, kw_only=True)
class ColorGridSettings(Settings):
    """As T2I-Adapter's color, where it is 64."""

    cell: int = field(default=64, metadata=between(1, 1024, "Side of the grid's cells in pixels."))


@dataclass(frozen=True, kw_only=True)
class ColorPaletteSettings(Settings):
    """How many colours."""

    colors: int = field(default=8, metadata=between(2, 64, "Most colours in each picture."))


@dataclass(frozen=True, kw_only=True)
class SegmentationPaletteSettings(Settings):
    """Whose colours."""

    palette: str = field(
        default="ADE20K",
        metadata=one_of(tuple(PALETTES), "The data set whose classes the ControlNet knows: ADE20K has 150."),
    )


def color_grid(images: Tensor, settings: ColorGridSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W at the size it came in: shrunk cubic, enlarged nearest."""
    return each_frame(images, lambda frame: in_cells(frame, settings.cell))


def in_cells(frame: Frame, cell: int) -> Frame:
    """H W 3 -> H W 3."""
    import cv2

    height, width = frame.shape[:2]
    small = cv2.resize(frame, (max(width // cell, 1), max(height // cell, 1)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def color_palette(images: Tensor, settings: ColorPaletteSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W in the colours that each picture itself is nearest to."""
    return each_8bit(images, lambda image: snapped(image, own_colours(image, settings.colors)))


def own_colours(image: Frame, count: int) -> Frame:
    """H W 3 uint8 -> K 3 uint8 by k-means, which starts from parts of equal size in the order of brightness."""
    import cv2

    height, width = image.shape[:2]
    small = cv2.resize(image, (min(width, SAMPLED), min(height, SAMPLED)), interpolation=cv2.INTER_AREA)
    pixels = small.reshape(-1, 3).astype(np.float32)
    distinct = np.unique(codes(small.reshape(-1, 3)))
    if len(distinct) <= count:
        return decoded(distinct)
    parts = np.empty((len(pixels), 1), np.int32)
    parts[np.argsort(pixels.sum(axis=1), kind="stable"), 0] = np.arange(len(pixels)) * count // len(pixels)
    centres = cv2.kmeans(pixels, count, parts, ROUNDS, 1, cv2.KMEANS_USE_INITIAL_LABELS)[2]
    return np.rint(centres).clip(0, 255).astype(np.uint8)


def segmentation_palette(images: Tensor, settings: SegmentationPaletteSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W in the palette's colours: cleans maps that were painted, resized or compressed."""
    palette = colours(settings.palette)
    return each_8bit(images, lambda image: snapped(image, palette))


def snapped(image: Frame, palette: Frame) -> Frame:
    """H W 3 uint8, K 3 uint8 -> H W 3 uint8: every pixel in the nearest colour, the first of equally near ones."""
    rows = max((1 << 20) // image.shape[1], 1)
    bands = [image[top : top + rows] for top in range(0, len(image), rows)]
    return np.concatenate(
        [np.take(palette, labels(band.reshape(-1, 3), palette), axis=0).reshape(band.shape) for band in bands]
    )


def labels(pixels: Frame, palette: Frame) -> Frame:
    """N 3 uint8, K 3 uint8 -> N: the nearest colour, Euclidean."""
    if len(palette) <= FEW:
        return nearest(pixels, palette)
    occurring, places = np.unique(codes(pixels), return_inverse=True)  # each colour is looked up once
    return nearest(decoded(occurring), palette)[places]


def nearest(pixels: Frame, palette: Frame) -> Frame:
    """N 3 uint8, K 3 uint8 -> N."""
    wanted = palette.astype(np.float32)
    half = (wanted**2).sum(axis=1) / 2  # |x - p|^2 / 2 = |x|^2 / 2 - x p + |p|^2 / 2, exact in float32
    parts = (pixels[start : start + CHUNK].astype(np.float32) for start in range(0, len(pixels), CHUNK))
    return np.concatenate([(half - part @ wanted.T).argmin(axis=1) for part in parts])


def codes(pixels: Frame) -> Frame:
    """N 3 uint8 -> N: a whole number for each colour."""
    red, green, blue = pixels.astype(np.int32).T
    return red << 16 | green << 8 | blue


def decoded(numbers: Frame) -> Frame:
    """N -> N 3 uint8: the colours again."""
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1).astype(np.uint8)
