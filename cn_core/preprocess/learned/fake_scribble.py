"""A scribble from soft edges, as ControlNet 1.0 was trained on ("fake scribble"): the crests of the edges, thickened.

Shapes: H W pixels.
"""

from __future__ import annotations

import numpy as np

from ..frames import Frame

SIGMA = 3.0
"""Pixels: of the blur before the crests are sought, and of the one that thickens them."""
FAINT = 4 / 255
"""What is brighter than this after the second blur is a stroke: some twelve pixels wider than the crest."""
DIRECTIONS = (
    np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.uint8),
    np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], np.uint8),
    np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8),
    np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.uint8),
)


def fake_scribble(edges: Frame, threshold: float = 0.5) -> Frame:
    """H W float32 in [0, 1] -> H W uint8: 255 on strokes, 0 elsewhere.

    A crest is a pixel that is brightest among its neighbours in any of four directions, and above the threshold.
    """
    import cv2

    soft = cv2.GaussianBlur(edges, (0, 0), SIGMA)
    crests = np.zeros(edges.shape, np.float32)
    for direction in DIRECTIONS:
        crests[cv2.dilate(soft, direction) == soft] = 1
    crests[soft <= threshold] = 0
    return np.where(cv2.GaussianBlur(crests, (0, 0), SIGMA) > FAINT, 255, 0).astype(np.uint8)
