"""Detectors of the BlazeFace kind (Bazarevsky et al. 2019), and the turned squares in which what they find is read.

Places are x, y in pixels of the picture from its top left corner, so that the middle of the first pixel is 0.5, 0.5.
Shapes: H W pixels, K points of a finding, N findings or points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, cos, sin

import numpy as np

from ..frames import Frame
from .litert import Network, Values

SAME = 0.3
"""Findings whose boxes overlap more (intersection over union) are one."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """A part of a picture, which may reach over its borders."""

    center: Values
    """2."""
    side: float
    angle: float = 0.0
    """Radians, clockwise."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """How a detector's outputs are to be understood."""

    side: int
    """Of its input, in pixels."""
    strides: tuple[int, ...]
    """Of its layers; each has two anchors in the middle of each of its cells."""
    low: float = 0.0
    """What black is for it; white is 1."""

    @property
    def centers(self) -> Values:
        """A 2 in shares of the input; layers of the same stride take turns in each cell."""
        grids: list[Values] = []
        for stride, layers in groupby(self.strides):
            cells = ceil(self.side / stride)
            steps = (np.arange(cells, dtype=np.float32) + 0.5) / cells
            grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
            grids.append(grid.repeat(2 * len(list(layers)), axis=0))
        return np.concatenate(grids)


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What a detector found, the most certain first."""

    scores: Values
    """N in [0, 1]."""
    places: Values
    """N 2+K 2: the box's top left and bottom right corner, then the points."""

    def __len__(self) -> int:
        return len(self.scores)


def squares(width: int, height: int, parts: bool) -> list[Square]:
    """One around the whole picture, and with `parts` overlapping ones of half its longer side, for what is small."""
    long = max(width, height)
    found = [Square(center=np.array([width, height], np.float32) / 2, side=long)]
    if parts:
        side = long / 2
        starts = [
            np.linspace(0, extent - side, ceil(2 * extent / side) - 1) if extent > side else [(extent - side) / 2]
            for extent in (width, height)
        ]
        corners = [(x, y) for y in starts[1] for x in starts[0]]
        found += [Square(center=np.array(corner, np.float32) + side / 2, side=side) for corner in corners]
    return found


def cropped(frame: Frame, square: Square, side: int) -> Frame:
    """H W 3 -> `side` `side` 3: the square upright, black where it reaches over the picture's borders."""
    import cv2

    size = np.array(frame.shape[1::-1])
    corners = in_picture(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), square)
    low, high = (corners.min(axis=0) - 1).astype(int).clip(0), (corners.max(axis=0) + 2).astype(int).clip(None, size)
    if (low >= high).any():
        return np.zeros((side, side, 3), np.float32)
    part = frame[low[1] : high[1], low[0] : high[0]]
    scale = np.ones(2)
    if square.side > 2 * side:  # bilinear interpolation looks at two pixels only
        width, height = (max(round(int(extent) * 2 * side / square.side), 1) for extent in high - low)
        scale = np.array([width, height]) / (high - low)
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    turn = turned(square.angle) * square.side / side * scale[:, None]
    start = (square.center - low) * scale - 0.5 + turn @ np.full(2, 0.5 - side / 2)
    matrix = np.concatenate([turn, start[:, None]], axis=1)
    return cv2.warpAffine(part, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def uncropped(crop: Values, square: Square, height: int, width: int) -> Frame:
    """`side` `side` of a square -> H W float32, 0 around it."""
    import cv2

    side = len(crop)
    turn = turned(square.angle) * square.side / side
    start = square.center - 0.5 + turn @ np.full(2, 0.5 - side / 2)
    matrix = np.concatenate([turn, start[:, None]], axis=1)
    return cv2.warpAffine(crop, matrix, (width, height), flags=cv2.INTER_CUBIC)


def turned(angle: float) -> Values:
    """2 2: a clockwise turn of x, y."""
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], np.float32)


def in_picture(points: Values, square: Square) -> Values:
    """... 2 in shares of the square -> the same in the picture."""
    return square.center + (points - 0.5) @ turned(square.angle).T * square.side


def in_square(points: Values, square: Square) -> Values:
    """The opposite."""
    return (points - square.center) @ turned(square.angle) / square.side + 0.5


def detect(network: Network, anchors: Anchors, frame: Frame, among: Sequence[Square], threshold: float) -> Findings:
    """H W 3 in [0, 1] -> what is found in any of these upright squares with at least this certainty."""
    centers = anchors.centers
    scores, places = [], []
    for square in among:
        crop = cropped(frame, square, anchors.side)
        outputs = network(crop * np.float32(1 - anchors.low) + np.float32(anchors.low))
        logits, raw = sorted(outputs, key=lambda one: one.shape[-1])  # A 1, A 4+2K
        score = sigmoid(logits[:, 0])
        likely = score >= threshold
        raw = raw.reshape(len(raw), -1, 2)[likely] / anchors.side
        raw[:, 0], raw[:, 1] = raw[:, 0] - raw[:, 1] / 2, raw[:, 0] + raw[:, 1] / 2
        scores.append(score[likely])
        places.append(in_picture(raw + centers[likely, None], square))
    return merged(np.concatenate(scores), np.concatenate(places))


def merged(scores: Values, places: Values) -> Findings:
    """Candidates -> one finding for each group that overlaps: their mean, weighted by score, as sure as the surest."""
    order = np.argsort(-scores, kind="stable")
    scores, places = scores[order], places[order]
    kept_scores, kept = [], []
    while len(scores):
        group = overlaps(places[0, :2], places[:, :2]) > SAME
        group[0] = True
        kept_scores.append(scores[0])
        kept.append(np.average(places[group], axis=0, weights=scores[group]))
        scores, places = scores[~group], places[~group]
    return Findings(
        scores=np.array(kept_scores, np.float32), places=np.array(kept, np.float32).reshape(-1, *places.shape[1:])
    )


def overlaps(box: Values, boxes: Values) -> Values:
    """2 2 and N 2 2 (corners) -> N: intersection over union."""
    common = np.clip(np.minimum(box[1], boxes[:, 1]) - np.maximum(box[0], boxes[:, 0]), 0, None).prod(axis=-1)
    union = (box[1] - box[0]).prod() + (boxes[:, 1] - boxes[:, 0]).prod(axis=-1) - common
    return common / np.maximum(union, 1e-9)


def sigmoid(logits: Values) -> Values:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
