"""Poses by BlazePose's real weights in a photograph whose points were read off by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError, WeightsError
from controlnet_kit.cn_core.preprocess.learned.blaze import Square
from controlnet_kit.cn_core.preprocess.learned.blazepose import (
    BODY,
    ENTRIES,
    BlazePoseDetector,
    BlazePoseSettings,
    body_18,
    chosen,
)
from controlnet_kit.cn_core.preprocess.learned.bodies import Body, body_square, same
from controlnet_kit.cn_core.preprocess.learned.hands import palm_square
from controlnet_kit.cn_core.preprocess.learned.litert import Network
from controlnet_kit.cn_core.preprocess.learned.mediapipe import PoseModel
from controlnet_kit.cn_core.preprocess.pose.draw import draw
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame, seen
from skimage import data
from torch import Tensor

NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_EYE, LEFT_EYE = 0, 1, 2, 5, 14, 15
BY_EYE = {NOSE: (223, 126), RIGHT_EYE: (203, 101), LEFT_EYE: (247, 103)}
"""In skimage's astronaut, pixels."""
DEFAULT = BlazePoseSettings()


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """1 3 512 512: a woman to the waist, in a space suit."""
    return torch.from_numpy(data.astronaut()).movedim(-1, 0)[None] / 255


def opened(folder: Path, settings: BlazePoseSettings) -> BlazePoseDetector:
    detector = ENTRIES[0].open([folder], settings)
    assert isinstance(detector, BlazePoseDetector)
    return detector


@pytest.fixture(scope="module")
def detector(weights_folder: Path) -> BlazePoseDetector:
    return opened(weights_folder, DEFAULT)


@pytest.fixture(scope="module")
def frame(detector: BlazePoseDetector, astronaut: Tensor) -> Frame:
    return detector.keypoints(astronaut, DEFAULT)[0]


def test_one_person_where_she_is(frame: Frame):
    assert (len(frame.people), frame.width, frame.height) == (1, 512, 512)
    body = frame.people[0].body
    for index, place in BY_EYE.items():
        np.testing.assert_allclose(body[index, :2], place, atol=5)
        assert body[index, 2] > 0.9
    np.testing.assert_allclose(body[RIGHT_SHOULDER, :2], (115, 210), atol=45)
    np.testing.assert_allclose(body[LEFT_SHOULDER, :2], (315, 230), atol=45)
    np.testing.assert_allclose(body[NECK, :2], body[[RIGHT_SHOULDER, LEFT_SHOULDER], :2].mean(axis=0), atol=0.01)


def test_the_face_has_70_points_with_pupils_in_the_eyes(frame: Frame):
    face = frame.people[0].face
    assert seen(face).all()
    np.testing.assert_allclose(face[68, :2], BY_EYE[RIGHT_EYE], atol=4)
    np.testing.assert_allclose(face[69, :2], BY_EYE[LEFT_EYE], atol=4)
    assert face[36:42, 0].min() < face[68, 0] < face[36:42, 0].max()
    assert face[42:48, 0].min() < face[69, 0] < face[42:48, 0].max()
    assert face[8, 1] == face[:17, 1].max()  # the chin is the lowest of the jaw
    assert face[0, 0] < face[30, 0] < face[16, 0]
    assert face[19:21, 1].mean() < face[37:39, 1].mean()  # brows above the eyes
    np.testing.assert_allclose(face[30, :2], BY_EYE[NOSE], atol=4)


def test_no_hands_are_made_up(frame: Frame):
    assert not frame.people[0].left_hand.any() and not frame.people[0].right_hand.any()


def test_a_mirrored_picture_mirrors_left_and_right(detector: BlazePoseDetector, astronaut: Tensor, frame: Frame):
    mirrored = detector.keypoints(astronaut.flip(-1), DEFAULT)[0]
    assert len(mirrored.people) == 1
    here, there = frame.people[0], mirrored.people[0]
    for one, other in ((RIGHT_EYE, LEFT_EYE), (LEFT_EYE, RIGHT_EYE), (NOSE, NOSE)):
        np.testing.assert_allclose(there.body[one, 0], 511 - here.body[other, 0], atol=14)
    np.testing.assert_allclose(there.face[68, 0], 511 - here.face[69, 0], atol=5)


@pytest.mark.parametrize("degrees", [15, 75])
def test_she_stays_one_person_when_the_picture_is_turned(
    degrees: int, detector: BlazePoseDetector, astronaut: Tensor, frame: Frame
):
    import cv2

    turn = cv2.getRotationMatrix2D(BY_EYE[NOSE], degrees, 1)
    turned = cv2.warpAffine(astronaut[0].movedim(0, -1).numpy(), turn, (512, 512))
    (person,) = detector.keypoints(torch.from_numpy(turned).movedim(-1, 0)[None], DEFAULT)[0].people
    expected = frame.people[0].face[:, :2] @ turn[:, :2].T + turn[:, 2]
    np.testing.assert_allclose(person.face[:, :2], expected, atol=8)


def test_two_people_side_by_side(detector: BlazePoseDetector, astronaut: Tensor):
    people = detector.keypoints(torch.cat([astronaut, astronaut], dim=-1), DEFAULT)[0].people
    assert len(people) == 2
    left, right = sorted(people, key=lambda person: person.body[NOSE, 0])
    for person, shift in ((left, 0), (right, 512)):
        np.testing.assert_allclose(person.body[NOSE, :2], (BY_EYE[NOSE][0] + shift, BY_EYE[NOSE][1]), atol=5)
    alone = detector.keypoints(torch.cat([astronaut, astronaut], dim=-1), BlazePoseSettings(max_people=1))[0].people
    assert len(alone) == 1


def test_a_small_person_is_found_in_parts_of_the_picture(detector: BlazePoseDetector, astronaut: Tensor):
    scene = torch.full((1, 3, 700, 700), 0.6)
    scene[..., 300:364, 60:124] = torch.nn.functional.interpolate(astronaut, size=(64, 64), mode="area")
    assert not detector.keypoints(scene, BlazePoseSettings(small=False))[0].people
    (person,) = detector.keypoints(scene, DEFAULT)[0].people
    np.testing.assert_allclose(person.body[NOSE, :2], (60 + 223 / 8, 300 + 126 / 8), atol=4)


def test_hints_are_our_drawing_at_the_size_that_came_in(detector: BlazePoseDetector, astronaut: Tensor, frame: Frame):
    hints = detector(astronaut, DEFAULT)
    torch.testing.assert_close(hints, draw((frame,), DEFAULT), rtol=0, atol=0)
    assert detector(astronaut[:, :, :301, :199].half(), DEFAULT).shape == (1, 3, 301, 199)
    assert detector(astronaut.half(), DEFAULT).dtype == torch.half


def test_a_batch_is_its_pictures(detector: BlazePoseDetector, astronaut: Tensor, frame: Frame):
    both = detector.keypoints(torch.cat([astronaut.flip(-1), astronaut]), DEFAULT)
    for part in ("body", "face", "foot"):
        np.testing.assert_array_equal(getattr(both[1].people[0], part), getattr(frame.people[0], part))


@pytest.mark.parametrize("size", [(512, 512), (1, 1), (7, 900)])
def test_nobody_gives_a_black_hint_and_a_line_in_the_log(
    detector: BlazePoseDetector, size: tuple[int, int], caplog: pytest.LogCaptureFixture
):
    for empty in (torch.zeros(1, 3, *size), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))):
        caplog.clear()
        assert not detector(empty, DEFAULT).any()
        assert "nobody in pictures [0]" in caplog.text


def test_a_cup_is_nobody(detector: BlazePoseDetector):
    assert not detector.keypoints(torch.from_numpy(data.coffee()).movedim(-1, 0)[None] / 255, DEFAULT)[0].people


def test_settings_choose_files_and_parts(weights_folder: Path, astronaut: Tensor):
    bare = BlazePoseSettings(model="lite", hands=False, face=False)
    assert [Path(file.file).name for file in ENTRIES[0].files(bare)] == [
        "pose_detection.tflite",
        "pose_landmark_lite.tflite",
    ]
    person = opened(weights_folder, bare).keypoints(astronaut, bare)[0].people[0]
    assert not person.face.any()
    np.testing.assert_allclose(person.body[NOSE, :2], BY_EYE[NOSE], atol=25)


@pytest.mark.parametrize("model", ["full", "lite"])
def test_the_other_networks_see_her_too(model: PoseModel, weights_folder: Path, astronaut: Tensor):
    settings = BlazePoseSettings(model=model)
    person = opened(weights_folder, settings).keypoints(astronaut, settings)[0].people[0]
    assert seen(person.face).all()
    np.testing.assert_allclose(person.body[NOSE, :2], BY_EYE[NOSE], atol=5)


def test_points_that_are_missing_stay_missing():
    points = np.zeros((33, 3), np.float32)
    points[11] = 10, 20, 0.9  # the left shoulder alone
    body = body_18(points)
    assert body[LEFT_SHOULDER] == pytest.approx([9.5, 19.5, 0.9])
    assert not np.delete(body, LEFT_SHOULDER, axis=0).any()
    assert not chosen(points, BODY)[NECK].any()


def test_a_body_on_anothers_mask_is_that_one():
    mask = np.zeros((256, 256), np.float32)
    mask[64:192, 96:160] = 1
    square = Square(center=np.array([100, 100], np.float32), side=200)
    points = np.zeros((33, 3), np.float32)
    points[:8] = [
        [100, 60, 1],
        [100, 70, 1],
        [90, 80, 1],
        [110, 80, 1],
        [100, 90, 1],
        [100, 140, 1],
        [-9, 5, 1],
        [5, 5, 1],
    ]
    here = Body(points=points, square=square, mask=mask)
    there = Body(points=points + np.array([70, 0, 0], np.float32), square=square, mask=mask)
    assert same(here, here) and not same(there, here)
    assert same(Body(points=np.zeros_like(points), square=square, mask=mask), here)  # nothing of it is seen


def test_squares_stand_upright_on_bodies_and_hands():
    upright = body_square(np.array([50, 80], np.float32), np.array([50, 40], np.float32))
    assert (upright.side, upright.angle) == pytest.approx((100, 0))
    lying = body_square(np.array([50, 80], np.float32), np.array([90, 80], np.float32))
    assert lying.angle == pytest.approx(np.pi / 2)
    palm = np.array([[40, 40], [60, 60], [50, 60], [0, 0], [70, 60]], np.float32)  # fingers to the right
    hand = palm_square(palm)
    assert (hand.side, hand.angle) == pytest.approx((52, np.pi / 2))
    np.testing.assert_allclose(hand.center, [60, 50], atol=1e-5)


def test_a_broken_picture_is_refused(detector: BlazePoseDetector):
    with pytest.raises(HintError, match="NaN"):
        detector(torch.full((1, 3, 8, 8), float("nan")), DEFAULT)


def test_what_is_no_network_is_named(tmp_path: Path):
    file = tmp_path / "broken.tflite"
    file.write_bytes(b"TFL3" * 100)
    with pytest.raises(WeightsError, match=r"broken\.tflite is no network that LiteRT runs"):
        Network(file)
