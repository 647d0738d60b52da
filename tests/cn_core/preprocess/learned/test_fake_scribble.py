"""Scribbles from soft edges, against the recipe in eight bits."""

from __future__ import annotations

import cv2
import numpy as np
from controlnet_kit.cn_core.preprocess.learned.fake_scribble import DIRECTIONS, fake_scribble


def soft_edges(frame: np.ndarray) -> np.ndarray:
    """H W 3 float32 in [0, 1] -> H W float32 in levels of 255."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.rint(steep / steep.max() * 255).astype(np.float32) / 255


def in_eight_bits(edges: np.ndarray) -> np.ndarray:
    """As ControlNet 1.0 has it: crests above 127 of the blurred map, blurred again, above 4."""
    soft = cv2.GaussianBlur(edges * 255, (0, 0), 3.0)
    crests = np.zeros_like(soft)
    for direction in DIRECTIONS:
        np.putmask(crests, cv2.dilate(soft, direction) == soft, soft)
    strokes = cv2.GaussianBlur(np.where(crests > 127, 255, 0).astype(np.uint8), (0, 0), 3.0)
    return np.where(strokes > 4, 255, 0).astype(np.uint8)


def test_it_is_the_recipe_but_for_rounding(frame: np.ndarray):
    edges = np.clip(soft_edges(frame) * 3, 0, 1).astype(np.float32)
    ours, theirs = fake_scribble(edges), in_eight_bits(edges)
    assert 0.05 < (theirs > 0).mean() < 0.95
    assert (ours != theirs).mean() < 0.03  # a pixel along the outline of strokes: 4 and 4.4 are one level in 8 bits


def test_a_line_becomes_a_stroke_around_it():
    edges = np.zeros((64, 64), np.float32)
    edges[:, 28:36] = 1
    strokes = fake_scribble(edges)[32] > 0
    assert 18 <= strokes.sum() <= 22 and strokes[31:33].all()
    assert np.flatnonzero(strokes).mean() == 31.5


def test_nothing_makes_nothing():
    assert not fake_scribble(np.zeros((16, 16), np.float32)).any()
