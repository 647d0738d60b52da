"""The reader takes every dialect of POSE_KEYPOINT, repairs what can be, and refuses the rest in words and in time."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from controlnet_kit.cn_core.preprocess.pose.keypoints import PARTS, Frame, Person, PoseError, everything, seen
from controlnet_kit.cn_core.preprocess.pose.read import MAX_TEXT, read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from poses import BODY, HEIGHT, WIDTH, aux_dialect, certain, core_dialect, face, flat, frame, hand, person


def only(source: object, **options: Any) -> Person:
    """The one person of the one frame."""
    (found,) = read(source, **options).frames
    (one,) = found.people
    return one


def posed(body: Any, **frame_fields: Any) -> list[dict[str, Any]]:
    """A frame with a canvas, and a person who has a body only."""
    return [{"people": [{"pose_keypoints_2d": body}], "canvas_width": 400, "canvas_height": 480, **frame_fields}]


def test_cores_dialect():
    source = core_dialect()
    before = copy.deepcopy(source)
    one = only(source)
    np.testing.assert_allclose(everything(one)[np.arange(136) != 17], everything(person())[np.arange(136) != 17])
    assert not one.body[17].any()
    assert source == before


def test_auxs_dialect():
    one = only(aux_dialect())
    np.testing.assert_allclose(one.body[:17], certain(BODY, 1.0)[:17])
    assert not one.body[17].any()
    assert not any(seen(getattr(one, part)).any() for part in PARTS if part != "body")


def test_shares_of_the_canvas():
    reading = read(aux_dialect((1 / WIDTH, 1 / HEIGHT)))
    np.testing.assert_allclose(reading.frames[0].people[0].body[:17], certain(BODY, 1.0)[:17], atol=1e-3)
    assert reading.notes == ("1 of 1 frames were in shares of the canvas and are in pixels now.",)


def test_shares_of_the_padded_canvas():
    """aux's OpenPose at 400x480: the picture that it saw was 448x512."""
    one = only(aux_dialect((1 / 448, 1 / 512)), padded=True)
    np.testing.assert_allclose(one.body[:17], certain(BODY, 1.0)[:17], atol=1e-3)


def test_a_hand_in_the_corner_is_still_in_pixels():
    corner = np.zeros((21, 3), np.float32)
    corner[:2] = [[0.5, 0.5, 1], [1.0, 0.2, 1]]
    source = write((frame(replace(person(whole=False), left_hand=corner)),))
    np.testing.assert_allclose(only(source).left_hand[:2], corner[:2])


def test_a_frame_with_too_few_points_is_as_the_others():
    far = posed(flat(certain(BODY)))
    near = posed(flat([[1.0, 1.5, 1], *[[0, 0, 0]] * 17]))
    np.testing.assert_allclose(read(far + near).frames[1].people[0].body[0], [1.0, 1.5, 1])
    shares = posed(flat(certain(BODY) / [400, 480, 1]))
    sparse = posed(flat([[0.5, 0.5, 1], *[[0, 0, 0]] * 17]))
    np.testing.assert_allclose(read(shares + sparse).frames[1].people[0].body[0], [200, 240, 1])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(flat(certain(BODY)), id="flat"),
        pytest.param(certain(BODY).tolist(), id="nested"),
        pytest.param(certain(BODY), id="array"),
        pytest.param([[*point, 0.9] if index else (200, 80, 0.9) for index, point in enumerate(BODY)], id="tuples"),
    ],
)
@pytest.mark.parametrize("form", ["list", "frame", "person", "people", "text"])
def test_forms(body, form):
    frames = posed(body)
    forms = {
        "list": frames,
        "frame": frames[0],
        "person": frames[0]["people"][0],
        "people": frames[0]["people"],
        "text": json.dumps(posed(np.asarray(body).tolist())),
    }
    np.testing.assert_allclose(only(forms[form], width=400, height=480).body, certain(BODY))


def test_points_without_confidence_are_certain():
    np.testing.assert_allclose(only(posed(BODY)).body, certain(BODY, 1.0))
    np.testing.assert_allclose(only(posed([number for point in BODY for number in point])).body, certain(BODY, 1.0))


def test_ways_to_be_missing():
    points: list[Any] = certain(BODY).tolist()
    points[0], points[1], points[2], points[3] = None, [], [-1, -1, 0.9], [0, 0, 1.0]
    points[4], points[5], points[6], points[7] = [5, 5, 0], [5, 5, -1], [float("nan"), 5, 1], [None, 5, 1]
    points[8], points[9] = [1e9, 5, 1], [10**400, 5, 1]
    reading = read(posed(points))
    np.testing.assert_array_equal(seen(reading.frames[0].people[0].body), [False] * 10 + [True] * 8)
    assert "Points that are no finite numbers, or far out, are missing." in reading.notes


def test_points_outside_of_the_canvas_stay():
    points = certain(BODY)
    points[0] = [-30, 900, 0.5]
    np.testing.assert_allclose(only(posed(points.tolist())).body[0], [-30, 900, 0.5])


def test_confidence_above_one():
    assert only(posed(flat(certain(BODY, 2.0)))).body[:, 2].max() == 1


def test_body_25():
    points = certain([[*place] for place in [*BODY[:8], (200, 260), *BODY[8:], *[(1, 2)] * 6]])
    one = only({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat(points)}]})
    np.testing.assert_allclose(one.body, certain(BODY))
    np.testing.assert_allclose(one.foot[:, :2], [(1, 2)] * 6)


def coco(body: Any) -> Any:
    """Our 18 points -> COCO's 17."""
    ours = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
    return np.asarray(body)[list(ours)]


def test_coco_and_its_whole_body():
    feet, left, right = certain([(3, 4)] * 6), hand(50, 60), hand(70, 80)
    whole = np.concatenate([coco(certain(BODY)), feet, face(200, 80)[:68], left, right])
    one = only(posed(flat(whole)))
    np.testing.assert_allclose(one.body, certain(BODY))
    np.testing.assert_allclose(one.left_hand, left)
    np.testing.assert_allclose(one.right_hand, right)
    np.testing.assert_allclose(one.face[:68], face(200, 80)[:68])
    assert not one.face[68:].any()
    np.testing.assert_allclose(one.foot, feet)
    np.testing.assert_allclose(only(posed(flat(coco(certain(BODY))))).body, certain(BODY))


def test_a_neck_needs_both_shoulders():
    points = coco(certain(BODY))
    points[5] = 0
    assert not only(posed(flat(points))).body[1].any()


def test_missing_canvas():
    source = [{"people": [{"pose_keypoints_2d": flat(certain(BODY))}]}]
    assert (read(source).frames[0].width, read(source).frames[0].height) == (320, 448)  # holds 270, 420
    assert read(source, width=600, height=700).frames[0].width == 600
    second = read([*core_dialect(), *source]).frames[1]
    assert (second.width, second.height) == (WIDTH, HEIGHT)
    shares = [{"people": [{"pose_keypoints_2d": flat(certain(BODY) / [400, 480, 1])}]}]
    np.testing.assert_allclose(only(shares, width=400, height=480).body, certain(BODY), atol=1e-3)
    with pytest.raises(PoseError, match="width and height"):
        read(shares)


def test_frames_without_people():
    frames = read([{"people": [], "canvas_width": 8, "canvas_height": 9}, None, {"people": None}]).frames
    assert [len(one.people) for one in frames] == [0, 0, 0]
    assert {(one.width, one.height) for one in frames} == {(8, 9)}


def test_animals_are_said_to_be_left_out():
    reading = read([{"animals": [[[1, 2, 1]] * 17], "canvas_width": 64, "canvas_height": 64}])
    assert reading.notes == ("Animals are left out.",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no keypoints: they are None"),
        ([], "no keypoints: they are a list of 0"),
        ("", "no JSON, or end early"),
        (json.dumps(core_dialect())[:-40], "no JSON, or end early"),
        ("[" * 100_000, "cannot be read|no JSON"),
        ('{"people": [' * 50_000, "cannot be read|no JSON"),
        ("1" * 10_000, "cannot be read"),
        ("x" * (MAX_TEXT + 1), "characters"),
        (7, "no keypoints: they are of type int"),
        ([7], "Frame 0 of the keypoints is of type int"),
        ({"bodies": {"candidate": [], "subset": []}}, "neither people nor a pose: they are an object with bodies"),
        ([{"people": 3}], "people in frame 0"),
        ([{"people": [3]}], "frame 0, person 0"),
        ([{"people": [{}] * 300}], "300 people"),
        ([{"people": [{}] * 200}] * 300, "people up to frame"),
        ([None] * 20_000, "20000 frames"),
        (posed("many"), "the text 'many'"),
        (posed(["1"] * 54), "the text '1'"),
        (posed([True] * 54), "True"),
        (posed([1.0] * 53), "53 numbers at frame 0, person 0, pose_keypoints_2d; 17, 18, 25 or 133"),
        (posed([0.0] * 10**6), "a list of 1000000"),
        (posed([[[1.0]]] * 18), "A point at"),
        (posed([[1.0, 2.0, [3.0]]] * 18), "a list of 1 at"),
        (posed(np.zeros((1000, 1000))), "of type ndarray"),
        (posed(BODY, canvas_width=float("nan")), "side of nan"),
        (posed(BODY, canvas_width="wide"), "the text 'wide'"),
        (posed(BODY, canvas_width=10**400), "side of type int|side of of type int"),
        (posed(BODY, canvas_width=100_000), "each side is 1 to 16384"),
    ],
)
def test_what_is_refused(source, message):
    with pytest.raises(PoseError, match=message) as caught:
        read(source)
    assert len(str(caught.value)) < 400


def test_a_list_within_itself():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PoseError):
        read(loop)


def test_written_frames_have_one_canvas_and_all_parts():
    first, second = write((frame(person()), frame(person(whole=False), width=800, height=960)))
    assert (second["canvas_width"], second["canvas_height"]) == (WIDTH, HEIGHT)
    lengths = {name: len(numbers) // 3 for name, numbers in second["people"][0].items()}
    assert sorted(lengths.values()) == [6, 18, 21, 21, 70]
    assert set(lengths) == set(first["people"][0])
    np.testing.assert_allclose(second["people"][0]["pose_keypoints_2d"][0], (200 + 0.5) / 2 - 0.5, atol=1e-3)


def test_written_for_aux():
    one = person()
    body = one.body.copy()
    body[3, 2] = 0.2
    written = write((frame(replace(one, body=body)),), certain_from=0.3)[0]["people"][0]
    assert written["pose_keypoints_2d"][9:12] == [0, 0, 0]
    assert set(written["face_keypoints_2d"][2::3]) == {1.0}


coordinates = st.floats(-2000, 2000, width=32) | st.sampled_from([0.0, -1.0])
points = st.tuples(coordinates, coordinates, st.sampled_from([0.0, 0.25, 1.0]))


@settings(max_examples=30, deadline=None)
@given(st.lists(points, min_size=18, max_size=18))
def test_written_and_read_is_the_same(rows):
    one = Person(body=np.array(rows, np.float32))
    written = write((Frame(people=(one,), width=999, height=777),))
    again = only(json.dumps(written), space="pixels")
    expected = np.where(seen(one.body)[:, None], one.body, 0)
    np.testing.assert_allclose(again.body, expected, atol=2e-3)
    assert write(read(written, space="pixels").frames) == written


numbers = st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3) | st.just(10**400)
anything = st.recursive(
    numbers,
    lambda inner: (
        st.lists(inner, max_size=25)
        | st.dictionaries(st.sampled_from(["people", "pose_keypoints_2d", "canvas_width", "canvas_height", "x"]), inner)
    ),
    max_leaves=40,
)


@settings(max_examples=300, deadline=2000)
@given(anything, st.booleans())
def test_anything_is_read_or_refused(value, as_text):
    try:
        reading = read(json.dumps(value) if as_text else value)
    except PoseError as error:
        assert 20 < len(str(error)) < 500
    else:
        for one in (one for found in reading.frames for one in found.people):
            assert np.isfinite(everything(one)).all()
            assert (everything(one)[:, 2] <= 1).all()


people = st.dictionaries(
    st.sampled_from(["pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d"]),
    st.none() | st.lists(numbers, min_size=54, max_size=54) | st.lists(st.lists(numbers, max_size=3), max_size=18),
)


@settings(max_examples=100, deadline=2000)
@given(st.lists(people, max_size=3), numbers)
def test_almost_keypoints_are_read_or_refused(found, side):
    try:
        read([{"people": found, "canvas_width": side, "canvas_height": 64}])
    except PoseError as error:
        assert 20 < len(str(error)) < 500


@given(st.text(max_size=40) | st.binary(max_size=20).map(repr))
def test_any_text_is_refused_in_words(text):
    with pytest.raises(PoseError):
        read(text)
