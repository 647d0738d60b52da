"""Poses placed, mirrored, with other proportions, and people picked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.preprocess.pose.edit import (
    BODY_MIRROR,
    BONES,
    FACE_MIRROR,
    FOOT_MIRROR,
    PickSettings,
    PlaceSettings,
    Proportions,
    area,
    center,
    flipped,
    picked,
    proportioned,
    relocated,
)
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame, Person, everything, seen
from hypothesis import given
from hypothesis import strategies as st
from poses import BODY, WIDTH, certain, frame, person


def placed(one: Person, **settings: float | bool | str) -> Person:
    return relocated(frame(one), PlaceSettings(**settings)).people[0]  # pyright: ignore[reportArgumentType]


def close(first: Person, second: Person, tolerance: float = 1e-2) -> None:
    np.testing.assert_allclose(everything(first), everything(second), atol=tolerance)


def test_defaults_change_nothing():
    close(placed(person()), person())
    close(proportioned(person(), Proportions()), person(), 1e-4)


@given(st.floats(0.1, 10), st.floats(-360, 360), st.floats(-500, 500), st.floats(-500, 500))
def test_placing_can_be_undone(scale, turn, right, down):
    there = placed(person(), scale=scale, around="canvas", right=right, down=down)
    back = placed(placed(there, right=-right, down=-down), scale=1 / scale, around="canvas")
    close(back, person(), 0.1)
    round_trip = placed(placed(person(), turn=turn, around="canvas"), turn=-turn, around="canvas")
    close(round_trip, person(), 0.1)


def test_scale_is_around_the_person():
    large = placed(person(), scale=2.0)
    np.testing.assert_allclose(center(large), center(person()), atol=1e-2)
    np.testing.assert_allclose(area(large) / area(person()), 4, rtol=0.02)


def test_turning_is_clockwise():
    turned = placed(Person(body=certain(BODY)), turn=90.0, around="canvas")
    middle = np.array([199.5, 239.5])
    np.testing.assert_allclose(turned.body[0, :2] - middle, [239.5 - 80, 0.5], atol=1e-2)  # the head is to the right


def test_missing_points_stay_missing():
    body = certain(BODY)
    body[4] = 0
    for changed in (
        placed(Person(body=body), scale=3.0, right=40.0, turn=10.0, flip=True),
        proportioned(Person(body=body), Proportions(arms=2.0)),
    ):
        assert seen(everything(changed)).sum() == 17
        assert not everything(changed)[~seen(everything(changed))].any()


@pytest.mark.parametrize("mirror", [BODY_MIRROR, FOOT_MIRROR, FACE_MIRROR])
def test_mirrors_are_their_own_opposites(mirror):
    assert [mirror[mirror[index]] for index in range(len(mirror))] == list(range(len(mirror)))


def test_a_mirrored_person_changes_sides():
    mirrored = flipped(person(), WIDTH + 1)  # the person stands at x = 200, the middle of 401 pixels
    np.testing.assert_allclose(mirrored.body, person().body, atol=1e-4)
    np.testing.assert_allclose(mirrored.foot, person().foot, atol=1e-4)
    close(flipped(flipped(person(13), 77), 77), person(13), 1e-3)
    np.testing.assert_allclose(mirrored.left_hand[0, :2], [270, 252])


@pytest.mark.parametrize("part", BONES)
def test_only_that_parts_bones_change_their_length(part):
    before, after = person().body, proportioned(person(), Proportions(**{part: 1.5})).body
    for name, bones in BONES.items():
        for near, far in bones:
            lengths = [np.linalg.norm(body[far, :2] - body[near, :2]) for body in (before, after)]
            np.testing.assert_allclose(lengths[1] / lengths[0], 1.5 if name == part else 1, rtol=1e-4)
    np.testing.assert_array_equal(before[1], after[1])


def test_hands_face_and_feet_move_along():
    after = proportioned(person(), Proportions(arms=1.5, legs=0.5, neck=2.0, hands=2.0, head=0.5))
    np.testing.assert_allclose(
        after.left_hand[0, :2] - after.body[7, :2], (person().left_hand[0] - person().body[7])[:2] * 2, atol=1e-3
    )
    np.testing.assert_allclose(after.foot[:3, :2] - after.body[13, :2], (person().foot[:3] - person().body[13])[:, :2])
    np.testing.assert_allclose(np.ptp(after.face[:, 0]) / np.ptp(person().face[:, 0]), 0.5, rtol=1e-3)


def test_picking_people():
    small = placed(person(), scale=0.5, right=-150.0)
    middle = placed(person(), scale=0.7, down=20.0)
    large = placed(person(), right=180.0)
    crowd = frame(middle, Person(), large, small)

    def kept(**settings: str | int) -> list[int]:
        people = picked(crowd, PickSettings(**settings)).people  # pyright: ignore[reportArgumentType]
        return [crowd.people.index(one) for one in people]

    assert kept() == [2]
    assert kept(order="largest first", count=9) == [2, 0, 3]
    assert kept(order="left to right", count=2) == [3, 0]
    assert kept(order="left to right", first=2) == [2]
    assert kept(order="as detected", count=2) == [0, 2]
    assert kept(first=7) == []
    faint = replace(large, body=large.body * np.array([1, 1, 0.1], np.float32))
    assert picked(frame(faint, middle), PickSettings(order="most certain first")).people == (middle,)
    assert picked(Frame(width=4, height=4), PickSettings()).people == ()


def test_settings_are_checked():
    with pytest.raises(ControlNetKitError, match="scale"):
        PlaceSettings(scale=0.0)
