"""Anchors, squares and what is read in them, without any network."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
from controlnet_kit.cn_core.preprocess.learned import bodies, faces, hands
from controlnet_kit.cn_core.preprocess.learned.blaze import (
    Square,
    cropped,
    in_picture,
    in_square,
    merged,
    overlaps,
    sigmoid,
    squares,
    uncropped,
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """40 60 3 of soft noise."""
    noise = np.random.default_rng(0).random((40, 60, 3), dtype=np.float32)
    return np.stack(
        [np.convolve(plane.ravel(), np.ones(3) / 3, "same").reshape(40, 60) for plane in noise.T], -1
    ).astype(np.float32)


def square(x: float, y: float, side: float, angle: float = 0.0) -> Square:
    return Square(center=np.array([x, y], np.float32), side=side, angle=angle)


@pytest.mark.parametrize(
    ("anchors", "count"), [(bodies.ANCHORS, 2254), (faces.ANCHORS, 896), (hands.ANCHORS, 2016)], ids=str
)
def test_anchors_are_as_many_as_the_networks_outputs(anchors, count: int):
    centers = anchors.centers
    assert centers.shape == (count, 2)
    assert centers[0] == pytest.approx([anchors.strides[0] / 2 / anchors.side] * 2)
    assert (centers[2] - centers[0]) * anchors.side == pytest.approx([anchors.strides[0], 0], abs=1e-4)


def test_an_upright_square_of_its_own_size_is_a_slice(picture: np.ndarray):
    np.testing.assert_allclose(cropped(picture, square(20, 18, 16), 16), picture[10:26, 12:28], atol=1e-5)


def test_a_turned_square_is_turned_back(picture: np.ndarray):
    crop = cropped(picture, square(20, 18, 16, pi / 2), 16)
    np.testing.assert_allclose(crop, np.rot90(picture[10:26, 12:28]), atol=1e-5)


def test_what_is_outside_of_the_picture_is_black(picture: np.ndarray):
    crop = cropped(picture, square(0, 0, 16), 16)
    np.testing.assert_allclose(crop[8:, 8:], picture[:8, :8], atol=1e-5)
    assert not crop[:7].any() and not crop[:, :7].any()
    assert not cropped(picture, square(-50, 900, 16), 16).any()


def test_shrinking_averages_all_pixels():
    board = (np.indices((256, 256)).sum(axis=0) % 2).astype(np.float32)[..., None].repeat(3, axis=-1)
    np.testing.assert_allclose(cropped(board, square(128, 128, 256), 16)[1:-1, 1:-1], 0.5, atol=0.01)


def test_a_crop_is_put_back_where_it_was(picture: np.ndarray):
    place = square(30, 20, 20, 0.4)
    back = uncropped(cropped(picture, place, 80)[..., 0], place, 40, 60)
    np.testing.assert_allclose(back[16:25, 26:35], picture[16:25, 26:35, 0], atol=0.12)
    assert not back[:4].any()


def test_places_in_a_square_go_to_the_picture():
    place = square(10, 20, 8, pi / 2)
    found = in_picture(np.array([[0.5, 0.5], [1.0, 0.5], [0.5, 0.0]], np.float32), place)
    np.testing.assert_allclose(found, [[10, 20], [10, 24], [14, 20]], atol=1e-5)  # its right is down, its top is right
    np.testing.assert_allclose(in_square(found, place), [[0.5, 0.5], [1.0, 0.5], [0.5, 0.0]], atol=1e-5)


@pytest.mark.parametrize(("width", "height", "count"), [(100, 100, 10), (200, 100, 4), (100, 200, 4), (1000, 10, 4)])
def test_parts_cover_the_picture(width: int, height: int, count: int):
    whole, *parts = squares(width, height, True)
    assert (whole.side, len(parts) + 1) == (max(width, height), count)
    assert squares(width, height, False)[0].side == whole.side
    covered = np.zeros((height, width), bool)
    for one in parts:
        (left, top), side = (one.center - one.side / 2).astype(int), int(one.side)
        covered[max(top, 0) : top + side, max(left, 0) : left + side] = True
    assert covered.all()


def test_overlapping_boxes_become_one_weighted_by_certainty():
    places = np.array([[[0, 0], [10, 10]], [[30, 30], [40, 40]], [[2, 0], [12, 10]]], np.float32)
    found = merged(np.array([0.9, 0.7, 0.3], np.float32), places)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    np.testing.assert_allclose(found.places, [[[0.5, 0], [10.5, 10]], [[30, 30], [40, 40]]], atol=1e-5)


def test_overlaps_are_intersection_over_union():
    boxes = np.array([[[0, 0], [2, 2]], [[1, 0], [3, 2]], [[5, 5], [6, 6]], [[1, 1], [1, 1]]], np.float32)
    assert overlaps(boxes[0], boxes) == pytest.approx([1, 1 / 3, 0, 0])


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)) == pytest.approx([0, 0.5, 1], abs=1e-6)
