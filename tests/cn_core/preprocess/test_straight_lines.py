"""Straight lines: known lines are found, nothing else."""

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.straight_lines import StraightLinesSettings, straight_lines


def house() -> tuple[torch.Tensor, np.ndarray]:
    """A bright pentagon on grey, and its outline."""
    corners = np.array([[20, 60], [60, 20], [100, 60], [100, 110], [20, 110]], np.int32)
    canvas, outline = np.full((128, 128, 3), 60, np.uint8), np.zeros((128, 128), np.uint8)
    cv2.fillPoly(canvas, [corners], (220, 200, 180))
    cv2.polylines(outline, [corners], True, 255)
    return torch.from_numpy(canvas).movedim(-1, 0)[None].float() / 255, outline > 0


@pytest.mark.parametrize("method", ["LSD", "Hough"])
def test_the_edges_of_a_house(method):
    picture, outline = house()
    found = straight_lines(picture, StraightLinesSettings(method=method))[0, 0].numpy() > 0
    near = cv2.dilate(outline.astype(np.uint8), np.ones((5, 5))) > 0
    assert not (found & ~near).any()
    covered = cv2.dilate(found.astype(np.uint8), np.ones((5, 5))) > 0
    assert covered[outline].mean() > 0.93


@pytest.mark.parametrize("method", ["LSD", "Hough"])
def test_length_and_thickness(method):
    picture, _ = house()
    thin, thick = (straight_lines(picture, StraightLinesSettings(method=method, thickness=t)).mean() for t in (1, 3))
    assert thick > 1.8 * thin
    assert straight_lines(picture, StraightLinesSettings(method=method, min_length=120)).sum() == 0


@pytest.mark.parametrize("method", ["LSD", "Hough"])
def test_a_circle_and_blank_paper_have_none(method):
    disc = np.zeros((96, 96, 3), np.uint8)
    cv2.circle(disc, (48, 48), 20, (255, 255, 255), -1)
    pictures = torch.stack([torch.from_numpy(disc).movedim(-1, 0).float() / 255, torch.full((3, 96, 96), 0.5)])
    assert straight_lines(pictures, StraightLinesSettings(method=method, min_length=40)).sum() == 0
