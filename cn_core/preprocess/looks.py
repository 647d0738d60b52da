"""What kind of map a picture looks like, by its colours and the width of what is in it; photographs look like none.

Limits were measured on maps of this package's preprocessors, on photographs and on drawings. Shapes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frames import Frame
from .map_kinds import MapKind
from .palettes import PALETTES, colours

LEVEL_TOLERANCE = 3 / 255
"""Colours that differ by less are the same: what JPEG and resizing do."""
DARK, LIGHT = 0.1, 0.9
GROUND, POSE_GROUND = 0.25, 0.4
"""Least share of a drawing that is its ground, and of a drawn pose."""
WIDE = 0.06
"""Of the short side: what is as wide everywhere is no line."""
LEFT_OF_LINES = 0.65
"""Most of a drawing's light that is left when all narrower than WIDE is taken out; photographs keep more."""
TWO_TONED = 0.97
UNIT = 0.85
"""Least share of a normal map's colours that stand for vectors of length 1."""
UNIT_TOLERANCE = 0.12
FEWEST = 24
"""Colours that a normal map has at least."""
IN_PALETTE = 0.9
"""Least share of a segmentation map in its palette."""
MOST_COLOURS = 1 << 14
"""A picture with more is no segmentation map."""
SMOOTH, STEP = 0.75, 4.5 / 255
"""Least share of a depth map's pixels that differ from no neighbour by more than the step."""
FLAT = 0.3
"""Largest share of a depth map that one level has, black apart."""
RANGE = (0.2, 0.9)
"""A depth map reaches below and above these."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture looks like."""

    kind: MapKind
    inverted: bool = False
    """Dark on light, where maps are light on dark."""


def look(picture: Frame) -> Look | None:
    """H W 3 float32 in [0, 1]; None: a photograph, a painting or nothing at all."""
    if np.ptp(picture) <= LEVEL_TOLERANCE:
        return None
    if is_grey(picture):
        return grey_look(picture.mean(axis=-1))
    if is_pose(picture):
        return Look(kind="pose")
    if is_pose(1 - picture):
        return Look(kind="pose", inverted=True)
    if best_palette(picture)[1] >= IN_PALETTE:
        return Look(kind="segmentation")
    return Look(kind="normal") if unit_share(picture) >= UNIT and front(picture) != 1 else None


def grey_look(level: Frame) -> Look | None:
    """The same of H W that is not all one level."""
    dark, light = float((level < DARK).mean()), float((level > LIGHT).mean())
    two_toned = dark + light >= TWO_TONED
    for inverted in (light > dark, light <= dark):  # the ground is larger than the lines, as a rule
        drawn = 1 - level if inverted else level
        if is_drawing(drawn):
            return Look(kind="lines" if two_toned else "soft lines", inverted=inverted)
    if two_toned:
        return Look(kind="mask")
    return Look(kind="depth") if is_depth(level) else None


def is_grey(picture: Frame) -> bool:
    """Whether hardly a pixel of H W 3 has a colour."""
    return float((np.ptp(picture, axis=-1) <= LEVEL_TOLERANCE).mean()) > 0.99


def is_drawing(level: Frame) -> bool:
    """Whether H W is mostly dark, and what is bright narrow."""
    import cv2

    if float((level < DARK).mean()) < GROUND:
        return False
    window = max(round(min(level.shape) * WIDE), 2) | 1
    opened = cv2.morphologyEx(level, cv2.MORPH_OPEN, np.ones((window, window), np.uint8))
    return float(opened.sum(dtype=np.float64)) <= LEFT_OF_LINES * float(level.sum(dtype=np.float64))


def is_pose(picture: Frame) -> bool:
    """Whether H W 3 is black with pure hues of several kinds (limbs and joints), or white points."""
    ground = picture.max(axis=-1) < DARK
    drawn = picture[~ground]
    if float(ground.mean()) < POSE_GROUND or not len(drawn):
        return False
    pure = drawn.min(axis=-1) <= 0.15 * drawn.max(axis=-1)
    white = drawn.min(axis=-1) > LIGHT
    hues = np.unique(np.argsort(drawn[pure], axis=-1), axis=0)  # six sectors of the colour wheel
    return float((pure | white).mean()) > 0.9 and len(hues) >= 4


def is_depth(level: Frame) -> bool:
    """Whether H W has the range and the smoothness of a depth map, and no ground of one level."""
    import cv2

    low, high = np.quantile(level, (0.005, 0.995))
    if low > RANGE[0] or high < RANGE[1]:
        return False
    window = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(level, window) - cv2.erode(level, window)
    counts = np.bincount(np.rint(level * 255).astype(np.int64).ravel(), minlength=256)[1:]
    return float((steps <= STEP).mean()) >= SMOOTH and int(counts.max()) <= FLAT * level.size


def best_palette(picture: Frame) -> tuple[str, float]:
    """The data set that has most of the colours of H W 3, and the share of pixels that are in them."""
    shares = {name: palette_share(picture, name) for name in PALETTES}
    name = max(shares, key=lambda one: shares[one])
    return name, shares[name]


def palette_share(picture: Frame, palette: str) -> float:
    """Share of the pixels of H W 3 that are in a data set's colours, black (no class) included."""
    pixels = np.rint(picture.reshape(-1, 3) * 255).astype(np.int64)
    occurring, counts = np.unique(pixels @ np.array([65536, 256, 1]), return_counts=True)
    known = np.concatenate([colours(palette).astype(np.float32), np.zeros((1, 3), np.float32)])
    colour = np.stack([occurring >> 16, occurring >> 8 & 255, occurring & 255], axis=1).astype(np.float32)
    if len(colour) > MOST_COLOURS:
        return 0.0
    apart = np.abs(colour[:, None] - known[None]).max(axis=-1).min(axis=1)
    return float(counts[apart <= LEVEL_TOLERANCE * 255].sum() / counts.sum())


def unit_share(picture: Frame) -> float:
    """Share of the colours of H W 3 (in steps of 1/32, so that a plain ground counts once) with |2c - 1| = 1.

    0 for fewer than FEWEST.
    """
    colour = np.unique(np.rint(picture.reshape(-1, 3) * 32).astype(np.int64), axis=0) / 32
    return unit_pixels(colour) if len(colour) >= FEWEST else 0.0


def unit_pixels(colour: Frame) -> float:
    """Share of the pixels of any shape with |2c - 1| = 1; black and mid grey, normal maps' grounds, are left out."""
    vectors = 2 * colour.reshape(-1, 3) - 1
    drawn = (colour.reshape(-1, 3).max(axis=1) >= DARK) & (np.abs(vectors).max(axis=1) >= DARK)
    unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT_TOLERANCE
    return float((unit & drawn).sum() / max(int(drawn.sum()), 1))


def front(picture: Frame) -> int:
    """The channel of H W 3 that is hardly ever dark, as the axis towards the viewer is: 2 in a normal map."""
    return int(np.argmax([float((picture[..., channel] > 0.45).mean()) for channel in range(3)]))
