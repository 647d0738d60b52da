"""Drawn poses: colours at the joints, limbs between the right ones, nothing anywhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.pose.draw import (
    LIMBS_18,
    LIMBS_25,
    DrawSettings,
    body_25,
    draw,
    empty,
    hue,
    xinsir_scale,
)
from controlnet_kit.cn_core.preprocess.pose.edit import PlaceSettings, relocated
from controlnet_kit.cn_core.preprocess.pose.keypoints import Person, PoseError
from poses import BODY, certain, frame, person

BODY_ONLY = DrawSettings(hands=False, face=False)


def colors(picture: torch.Tensor) -> np.ndarray:
    """3 H W in [0, 1] -> H W 3 in 0 to 255."""
    return (picture.movedim(0, -1) * 255).round().to(torch.uint8).numpy()


def two(first: int, second: int) -> Person:
    """Only two joints of the body."""
    body = np.zeros((18, 3), np.float32)
    body[[first, second]] = certain(BODY)[[first, second]]
    return Person(body=body)


def test_joints_have_the_colours_of_the_rainbow():
    picture = colors(draw((frame(person()),), BODY_ONLY)[0])
    for index, (x, y) in enumerate(BODY):
        assert tuple(picture[y, x]) == hue(index)
    assert [hue(step) for step in (0, 1, 6, 12, 17)] == [
        (255, 0, 0),
        (255, 85, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 0, 85),
    ]


@pytest.mark.parametrize("index", range(17))
def test_a_limb_joins_its_joints_in_its_colour_at_three_fifths(index):
    start, end = LIMBS_18[index]
    picture = colors(draw((frame(two(start, end)),), BODY_ONLY)[0])
    limb = (picture == np.array(hue(index, 0.6))).all(axis=-1)
    (x1, y1), (x2, y2) = BODY[start], BODY[end]
    rows, columns = np.nonzero(limb)
    length = np.hypot(x2 - x1, y2 - y1)
    along = ((columns - x1) * (x2 - x1) + (rows - y1) * (y2 - y1)) / length
    aside = abs((columns - x1) * (y2 - y1) - (rows - y1) * (x2 - x1)) / length
    assert limb.sum() > 10
    assert along.min() > -1.5
    assert along.max() < length + 1.5
    assert 3 < aside.max() < 5.2
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4  # black, the limb, two joints


def test_a_limb_needs_both_joints():
    body = certain(BODY)
    body[3, 2] = 0.2
    picture = colors(draw((frame(Person(body=body)),), BODY_ONLY)[0])
    assert not (picture == np.array(hue(2, 0.6))).all(axis=-1).any()
    assert not (picture == np.array(hue(3, 0.6))).all(axis=-1).any()
    lower = DrawSettings(hands=False, face=False, threshold=0.1)
    assert (colors(draw((frame(Person(body=body)),), lower)[0]) == np.array(hue(2, 0.6))).all(axis=-1).any()


def test_all_ends_are_joints_and_each_joint_but_the_root_hangs_on_one():
    for limbs, count, root in ((LIMBS_18, 18, 1), (LIMBS_25, 25, 1)):
        assert sorted(end for _, end in limbs) == [joint for joint in range(count) if joint != root]


def test_the_mirrored_pose_is_the_mirrored_shape():
    straight = draw((frame(person(right=30)),), DrawSettings())[0]
    turned = draw((relocated(frame(person(right=30)), PlaceSettings(flip=True)),), DrawSettings())[0]
    first, second = straight.any(dim=0).flip(-1), turned.any(dim=0)
    assert (first & second).sum() / (first | second).sum() > 0.97


def test_hands_and_face():
    picture = colors(draw((frame(person()),), DrawSettings())[0])
    one = person()
    for point in (*one.left_hand[1:], *one.right_hand[1:]):
        assert tuple(picture[round(float(point[1])), round(float(point[0]))]) == (0, 0, 255)
    for point in one.face:
        assert tuple(picture[round(float(point[1])), round(float(point[0]))]) == (255, 255, 255)
    without = colors(draw((frame(person()),), BODY_ONLY)[0])
    np.testing.assert_array_equal(without, colors(draw((frame(person(whole=False)),), DrawSettings())[0]))


def test_body_25_has_the_middle_of_the_hips():
    points = body_25(person(), feet=True)
    np.testing.assert_allclose(points[8, :2], (200, 260))
    picture = colors(draw((frame(person()),), DrawSettings(skeleton="OpenPose 25", hands=False, face=False))[0])
    assert tuple(picture[260, 200]) == (255, 0, 0)
    assert tuple(picture[200, 200]) == hue(0, 0.6)
    assert tuple(picture[130, 240]) == hue(4)
    assert not picture[432:].any()
    feet = DrawSettings(skeleton="OpenPose 25", hands=False, face=False, feet=True)
    assert colors(draw((frame(person()),), feet)[0])[432:].any()


def test_points_off_the_canvas_are_cut_off():
    for shift in ((-200, 0), (200, 0), (0, -130), (0, 300), (10**5, 0)):
        whole = draw((frame(person(*shift)),), DrawSettings())[0]
        assert whole.shape == (3, 480, 400)
    left = colors(draw((frame(person(-200)),), DrawSettings())[0])
    full = colors(draw((frame(person()),), DrawSettings())[0])
    np.testing.assert_array_equal(left[:, :200], full[:, 200:])
    assert not draw((frame(person(5000)),), DrawSettings()).any()
    assert not draw((frame(Person(body=certain(BODY) * [1e5, 1, 1])),), DrawSettings()).any()


def test_nobody_is_black_and_said():
    pictures = draw((frame(), frame(person()), frame(Person())), DrawSettings())
    assert empty(pictures) == [0, 2]


def test_a_batch_is_its_pictures():
    frames = (frame(person()), frame(person(20), person(-90, 40)), frame())
    batch = draw(frames, DrawSettings())
    assert batch.shape == (3, 3, 480, 400)
    assert batch.dtype == torch.float32
    for one, picture in zip(frames, batch, strict=True):
        assert torch.equal(draw((one,), DrawSettings())[0], picture)
    assert torch.equal(batch, draw(frames, DrawSettings()))


def test_another_size():
    pictures = draw((frame(person()), frame(person(), width=100, height=120)), BODY_ONLY, width=800, height=960)
    assert pictures.shape == (2, 3, 960, 800)
    picture = colors(pictures[0])
    for index, (x, y) in enumerate(BODY):
        assert tuple(picture[round((y + 0.5) * 2 - 0.5), round((x + 0.5) * 2 - 0.5)]) == hue(index)
    assert draw((frame(person()),), BODY_ONLY, width=800).shape == (1, 3, 480, 800)


@pytest.mark.parametrize(("side", "scale"), [(499, 1), (500, 2), (1024, 3), (1999, 3), (2000, 4), (9000, 7)])
def test_xinsirs_widths(side, scale):
    assert xinsir_scale(side) == scale


def test_xinsirs_limbs_are_wider_on_larger_pictures():
    areas = [
        draw((frame(two(2, 3)),), replace(BODY_ONLY, xinsir=xinsir), width=1200, height=1440).any(dim=1).sum()
        for xinsir in (False, True)
    ]
    assert 2 < areas[1] / areas[0] < 3


def test_too_many_pixels_are_refused():
    with pytest.raises(PoseError, match="16384x16384"):
        draw((frame(width=16384, height=16384),), DrawSettings())
    with pytest.raises(PoseError, match="200 pictures"):
        draw((frame(width=4096, height=4096),) * 200, DrawSettings())
