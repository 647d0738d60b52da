"""M-LSD with its public weights: the lines of drawn figures, at any size, every picture by itself."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned.mlsd import MLSDDetector, MLSDSettings, drawn
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from torch import Tensor

SETTINGS = MLSDSettings(network="320 tiny")
CORNERS = np.array([[60, 50], [250, 40], [270, 190], [80, 200]], np.int32)


def opened(weights_folder: Path, settings: MLSDSettings) -> MLSDDetector:
    return LEARNED["mlsd"].open([weights_folder], settings)  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def mlsd(weights_folder: Path) -> MLSDDetector:
    return opened(weights_folder, SETTINGS)


def quadrangle(height: int = 240, width: int = 320) -> Tensor:
    """1 3 H W: bright, on dark."""
    canvas = np.full((240, 320), 40, np.uint8)
    cv2.fillPoly(canvas, [CORNERS], 200)
    sized = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(sized).float().div(255).expand(1, 3, -1, -1)


def outline(height: int = 240, width: int = 320, thickness: int = 1) -> np.ndarray:
    """H W bool: its sides."""
    corners = CORNERS * (width / 320, height / 240)
    canvas = np.zeros((height, width), np.uint8)
    return cv2.polylines(canvas, [np.rint(corners).astype(np.int32)], True, 255, thickness) > 0


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (SETTINGS, (240, 320)),
        (SETTINGS, (121, 333)),
        (MLSDSettings(), (480, 640)),
        (MLSDSettings(network="320"), (240, 320)),
    ],
)
def test_draws_the_sides_of_a_quadrangle(weights_folder: Path, settings: MLSDSettings, size: tuple[int, int]):
    """All networks find it, and put it where it is."""
    lines = opened(weights_folder, settings)(quadrangle(*size), settings)
    assert lines.shape == (1, 3, *size) and set(lines.unique().tolist()) == {0.0, 1.0}
    found = lines[0, 0].numpy() > 0
    near = outline(*size, thickness=max(size) // 40)
    assert (found & near).sum() > 0.9 * found.sum()
    reached = cv2.dilate(found.astype(np.uint8), np.ones((max(size) // 40,) * 2)) > 0
    assert reached[outline(*size)].mean() > 0.9


def test_every_picture_by_itself_and_the_same_each_time(mlsd: MLSDDetector, photos: Tensor):
    pictures = torch.cat([quadrangle(), quadrangle().flip(3), 1 - quadrangle()])
    together = mlsd(pictures, SETTINGS)
    assert torch.equal(together, torch.cat([mlsd(one[None], SETTINGS) for one in pictures]))
    assert torch.equal(together, mlsd(pictures, SETTINGS))
    assert mlsd(photos.bfloat16(), SETTINGS).dtype == torch.bfloat16


def test_nothing_found_is_an_empty_map_and_one_line_in_the_log(mlsd: MLSDDetector, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert mlsd(torch.full((3, 3, 40, 60), 0.5), SETTINGS).sum() == 0
    (record,) = caplog.records
    assert "no straight lines in 3 of 3 pictures" in record.getMessage()
    caplog.clear()
    mlsd(quadrangle(), SETTINGS)
    assert not caplog.records


def test_thresholds_leave_lines_out(mlsd: MLSDDetector):
    picture = quadrangle()[0].movedim(0, -1).contiguous().numpy()
    counts = [
        len(mlsd.lines(picture, MLSDSettings(network="320 tiny", score_threshold=level))) for level in (0.01, 0.1, 1.0)
    ]
    assert counts[0] >= counts[1] >= 4 and counts[2] == 0
    few = MLSDSettings(network="320 tiny", score_threshold=0.01, distance_threshold=20.0)
    ends = mlsd.lines(picture, few)
    cells = np.hypot((ends[:, 2] - ends[:, 0]) * 160 / 320, (ends[:, 3] - ends[:, 1]) * 160 / 240)
    assert len(ends) and (cells > 20).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_odd_sizes_come_back(mlsd: MLSDDetector, size: tuple[int, int]):
    assert mlsd(torch.rand(1, 3, *size), SETTINGS).shape == (1, 3, *size)


def test_ends_beyond_the_picture_are_cut_off():
    canvas = drawn(np.array([[-50.0, 5.0, 500.0, 5.0]], np.float32), (10, 20))
    assert (canvas[5] == 255).all() and canvas.sum() == 20 * 255
