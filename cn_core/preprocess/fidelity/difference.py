"""Where a picture leaves its hint, with a legend below. Shapes: B batch, H W pixels, S rows of the legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..frames import Frame, weakest
from ..heatmap import heatmap
from ..map_kinds import MapKind, kind_of
from . import depth, edges, normals
from .score import VISIBLE, class_maps, comparable, pairs

MATCH, MISSING, EXTRA = (1.0, 1.0, 1.0), (1.0, 0.1, 0.1), (0.2, 0.45, 1.0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
WORDS = {"match": MATCH, "missing": MISSING, "extra": EXTRA}
"""missing: the hint has it and the picture does not; extra: the other way round."""
STRIP, LETTER = 20, 7
"""Height of a legend and width of its letters, in pixels."""
FULL_DEPTH, FULL_ANGLE, FULL_LEVEL = 0.5, 90.0, 0.5
"""The errors that are white in heat maps."""


def difference(preprocessor: str, hint: Tensor, redone: Tensor, *, tolerance_px: float = 2) -> Tensor:
    """B 3 H W in [0, 1] each (one hint goes for all) -> B 3 H+S W: the arguments are those of `score.fidelity`.

    Lines, poses, masks and segmentation in white, red and blue; depth, normals and all else as heat maps of the error.
    """
    hint, redone = comparable(hint, redone)
    kind = kind_of(preprocessor)
    if kind in PAINTED:
        drawn = [painted(*PAINTED[kind](one, other, tolerance_px)) for one, other in pairs(hint, redone)]
        maps, below = torch.from_numpy(np.stack(drawn)).movedim(-1, 1), words(hint.shape[3])
    else:
        error, full, unit = ERRORS.get(kind, (of_levels, FULL_LEVEL, ""))
        maps = heatmap(torch.from_numpy(np.stack([error(one, other) / full for one, other in pairs(hint, redone)])))
        below = scale(hint.shape[3], f"{full:g}{unit}")
    return torch.cat([maps, below.expand(len(maps), -1, -1, -1)], dim=2)


def painted(match: Frame, missing: Frame, extra: Frame) -> Frame:
    """H W bool each -> H W 3 float32."""
    picture = np.zeros((*match.shape, 3), np.float32)
    for where, colour in ((match, MATCH), (missing, MISSING), (extra, EXTRA)):
        picture[where] = colour
    return picture


def of_lines(found: Frame, wanted: Frame, tolerance_px: float) -> tuple[Frame, Frame, Frame]:
    """H W 3 -> H W bool of lines that match within the tolerance, that are missing and that are extra."""
    found, wanted = found.max(axis=-1), wanted.max(axis=-1)
    level = edges.line_level(wanted)
    found, wanted = found > level, wanted > level
    by_hint, by_picture = edges.near(wanted, tolerance_px), edges.near(found, tolerance_px)
    return (found & by_hint) | (wanted & by_picture), wanted & ~by_picture, found & ~by_hint


def of_areas(found: Frame, wanted: Frame) -> tuple[Frame, Frame, Frame]:
    """H W bool -> H W bool."""
    return found & wanted, wanted & ~found, found & ~wanted


def of_classes(found: Frame, wanted: Frame, _: float) -> tuple[Frame, Frame, Frame]:
    """Nothing is extra: another class is a miss."""
    one, other = class_maps(found, wanted)
    return one == other, one != other, np.zeros(one.shape, np.bool_)


def of_levels(found: Frame, wanted: Frame) -> Frame:
    """H W 3 -> H W: the mean difference of the channels."""
    return np.abs(found - wanted).mean(axis=-1)


def of_depth(found: Frame, wanted: Frame) -> Frame:
    """H W 3 -> H W: after the best scale and shift."""
    wanted = wanted.mean(axis=-1)
    return np.abs(depth.aligned(found.mean(axis=-1), wanted) - wanted)


PAINTED: Mapping[MapKind, Callable[[Frame, Frame, float], tuple[Frame, Frame, Frame]]] = {
    "lines": of_lines,
    "soft lines": of_lines,
    "mask": lambda found, wanted, _: of_areas(weakest(found) > 0.5, weakest(wanted) > 0.5),
    "pose": lambda found, wanted, _: of_areas(found.max(axis=-1) > VISIBLE, wanted.max(axis=-1) > VISIBLE),
    "segmentation": of_classes,
}
ERRORS: Mapping[MapKind, tuple[Callable[[Frame, Frame], Frame], float, str]] = {
    "depth": (of_depth, FULL_DEPTH, ""),
    "normal": (normals.angles, FULL_ANGLE, " degrees"),
}
"""What is shown as a heat map, the error that is white, and its unit."""


def words(width: int) -> Tensor:
    """3 S W: a third for each colour, with its name in it."""
    strip = np.zeros((STRIP, width, 3), np.uint8)
    for index, (word, colour) in enumerate(WORDS.items()):
        left, right = width * index // len(WORDS), width * (index + 1) // len(WORDS)
        strip[:, left:right] = np.rint(np.array(colour) * 255)
        write(strip[:, left:right], word, 3, BLACK)
    return torch.from_numpy(strip).movedim(-1, 0) / 255


def scale(width: int, full: str) -> Tensor:
    """3 S W: the heat map's colours from 0 to the largest error."""
    colours = heatmap(torch.linspace(0, 1, width).expand(1, STRIP, width))[0]
    strip = (colours * 255).byte().movedim(0, -1).contiguous().numpy()
    write(strip, "0", 3, WHITE)
    write(strip, full, max(width - LETTER * len(full) - 3, 12), BLACK)
    return torch.from_numpy(strip).movedim(-1, 0) / 255


def write(strip: Frame, text: str, left: int, colour: tuple[int, int, int]) -> None:
    """A word into S W 3 uint8, in place; what does not fit is cut off."""
    import cv2

    canvas = np.ascontiguousarray(strip)
    cv2.putText(canvas, text, (left, STRIP - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA)
    strip[:] = canvas
