"""PCK and OKS of people that were moved by known distances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from controlnet_kit.cn_core.preprocess.fidelity.pose import SIGMAS, frame_score, oks, pck
from controlnet_kit.cn_core.preprocess.fidelity.score import pose_fidelity
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame, Person, on_canvas
from poses import BODY, HEIGHT, WIDTH, person

WIDE, HIGH = np.ptp(np.array(BODY), axis=0)


def frame(*people: Person, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Frame:
    return Frame(people=people, width=size[0], height=size[1])


def test_the_same_person_is_perfect_and_none_at_all_too():
    assert oks(person(), person()) == pck(person(), person()) == 1
    assert frame_score(frame(), frame(), oks) == 1
    assert frame_score(frame(person()), frame(), oks) == frame_score(frame(), frame(person()), oks) == 0


def test_oks_of_a_shift_is_cocos_formula():
    known = SIGMAS[~np.isnan(SIGMAS)]
    assert len(known) == 17
    expected = np.mean([math.exp(-(7**2) / (2 * WIDE * HIGH * (2 * sigma) ** 2)) for sigma in known])
    assert oks(person(right=7), person()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("right", "within"), [(0.099, 1), (0.101, 0)])
def test_pck_counts_points_within_a_tenth_of_the_longer_side(right, within):
    assert pck(person(right=right * max(WIDE, HIGH)), person()) == within


def test_points_that_were_not_found_are_wrong_and_those_the_hint_lacks_do_not_count():
    body = person().body.copy()
    body[:9] = 0
    half = replace(person(), body=body)
    assert pck(half, person()) == pytest.approx(0.5)
    assert pck(person(), half) == 1
    assert oks(half, person()) == pytest.approx(9 / 17)


def test_people_are_matched_whatever_their_order_and_a_stranger_costs():
    one, other = person(right=-60), person(right=60)
    assert frame_score(frame(other, one), frame(one, other), pck) == 1
    assert frame_score(frame(one), frame(one, other), pck) == 0.5
    assert frame_score(frame(one, other), frame(one), pck) == 0.5


def test_canvases_of_other_sizes_are_stretched():
    small = on_canvas(frame(person()), WIDTH // 2, HEIGHT // 2)
    assert frame_score(small, frame(person()), oks) == pytest.approx(1, abs=1e-6)


def test_one_pose_is_wanted_of_all_frames():
    found = pose_fidelity([frame(person())], [frame(person()), frame()])
    assert (found.name, found.per_image, found.value) == ("pose_oks", (1, 0), 0.5)
    assert found.details == {"pose_pck": 0.5}
