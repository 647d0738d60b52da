"""Edge scores: known answers for known pictures."""

import cv2
import numpy as np
import pytest
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny_edges
from controlnet_kit.cn_core.preprocess.fidelity.edges import agreement, edge_scores


def square(left: int) -> np.ndarray:
    """A white square on black, 64 64 3 uint8."""
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.rectangle(image, (left, 20), (left + 20, 40), (255, 255, 255), -1)
    return image


def test_a_picture_follows_its_own_edges() -> None:
    scores = edge_scores(square(20), canny_edges(square(20), CannySettings()))
    assert (scores.precision, scores.recall, scores.f1) == (1, 1, 1)


@pytest.mark.parametrize(("moved", "matches"), [(2, True), (8, False)])
def test_the_tolerance_is_two_pixels(moved: int, matches: bool) -> None:
    scores = edge_scores(square(20 + moved), canny_edges(square(20), CannySettings()))
    assert (scores.f1 == 1) is matches
    assert scores.f1 > 0.4  # the horizontal sides still lie on each other


def test_half_of_the_hint_drawn_gives_full_precision_and_half_recall() -> None:
    both = np.maximum(square(4), square(40))
    scores = edge_scores(square(4), canny_edges(both, CannySettings()))
    assert scores.precision == 1 and scores.recall == pytest.approx(0.5)
    assert scores.f1 == pytest.approx(2 / 3)


def test_nothing_on_nothing_is_perfect_and_nothing_on_something_is_not() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    assert edge_scores(black, black[..., 0]).f1 == 1
    assert edge_scores(black, canny_edges(square(20), CannySettings())).f1 == 0
    assert edge_scores(square(20), black[..., 0]).f1 == 0


def test_agreement_is_that_of_all_pairs_of_pixels():
    rng = np.random.default_rng(0)
    found, wanted = rng.random((2, 40, 60)) < 0.05
    scores = agreement(found, wanted, tolerance_px=1.5)
    places, others = np.argwhere(found), np.argwhere(wanted)
    near = np.linalg.norm(places[:, None] - others[None], axis=-1) <= 1.5
    assert scores.precision == pytest.approx(near.any(axis=1).mean())
    assert scores.recall == pytest.approx(near.any(axis=0).mean())


def test_changing_sides_exchanges_precision_and_recall():
    rng = np.random.default_rng(1)
    found, wanted = rng.random((2, 40, 60)) < [[[0.1]], [[0.02]]]
    one, other = agreement(found, wanted), agreement(wanted, found)
    assert (one.precision, one.recall, one.f1) == (other.recall, other.precision, other.f1)
