"""Films of poses: people are followed, gaps filled, jitter taken out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame, Person, PoseError, everything, seen
from controlnet_kit.cn_core.preprocess.pose.smooth import SmoothSettings, smoothed
from controlnet_kit.cn_core.preprocess.pose.track import tracks
from poses import frame, person
from scipy.ndimage import gaussian_filter1d

OFF = SmoothSettings(method="none", fill_gaps=0)
METHODS = [SmoothSettings(sigma=2.0), SmoothSettings(method="one euro", beta=0.0)]


def noses(frames: tuple[Frame, ...], index: int = 0) -> np.ndarray:
    """T 2."""
    return np.array([one.people[index].body[0, :2] for one in frames])


def jittering(length: int = 40) -> tuple[Frame, ...]:
    noise = np.random.default_rng(3).normal(0, 3, (length, 2))
    return tuple(frame(person(right, down)) for right, down in noise)


def test_off_is_off():
    film = jittering(6)
    for before, after in zip(film, smoothed(film, OFF), strict=True):
        np.testing.assert_array_equal(everything(before.people[0]), everything(after.people[0]))


@pytest.mark.parametrize("settings", METHODS)
def test_a_still_person_stays_still(settings):
    film = (frame(person()),) * 7
    for after in smoothed(film, settings):
        np.testing.assert_allclose(everything(after.people[0]), everything(person()), atol=1e-3)


@pytest.mark.parametrize("settings", METHODS)
def test_jitter_gets_less(settings):
    film = jittering()
    before, after = noses(film), noses(smoothed(film, settings))
    assert np.diff(after, axis=0).std() < 0.4 * np.diff(before, axis=0).std()


def test_gaussian_is_scipys_away_from_the_ends():
    film = jittering(60)
    expected = gaussian_filter1d(noses(film).astype(np.float64), 1.5, axis=0, radius=5)
    after = noses(smoothed(film, SmoothSettings(sigma=1.5)))
    np.testing.assert_allclose(after[6:-6], expected[6:-6], atol=1e-2)


def test_a_gaussian_does_not_lag_and_one_euro_follows_fast_moves():
    film = tuple(frame(person(right=8.0 * time)) for time in range(20))
    np.testing.assert_allclose(noses(smoothed(film, SmoothSettings()))[4:-4], noses(film)[4:-4], atol=1e-2)
    lags = [
        (noses(film) - noses(smoothed(film, SmoothSettings(method="one euro", beta=beta))))[-1, 0]
        for beta in (0.0, 50.0)
    ]
    assert lags[0] > 5 * lags[1] > 0


def test_gaps_are_filled_on_a_straight_line():
    film = [frame(person(right=10.0 * time)) for time in range(8)]
    film[2], film[3], film[4] = frame(), frame(Person()), frame()
    done = smoothed(tuple(film), SmoothSettings(method="none", fill_gaps=3))
    np.testing.assert_allclose(noses(done)[:, 0], 200 + 10.0 * np.arange(8), atol=1e-3)
    left = smoothed(tuple(film), SmoothSettings(method="none", fill_gaps=2))
    assert [len(one.people) for one in left] == [1, 1, 0, 0, 0, 1, 1, 1]


def test_a_point_is_as_certain_as_the_ends_of_its_gap_and_ends_of_a_film_stay_empty():
    body = person().body.copy()
    body[4] = 0
    gap, faint = Person(body=body), Person(body=person().body * np.array([1, 1, 0.5], np.float32))
    film = tuple(frame(one) for one in (gap, person(whole=False), gap, faint, gap))
    done = [one.people[0].body[4] for one in smoothed(film, SmoothSettings(method="none"))]
    np.testing.assert_allclose([point[2] for point in done], [0, 0.9, 0.45, 0.45, 0], atol=1e-6)


def test_people_keep_their_identity_when_their_order_changes():
    left, right = (lambda time: person(-100 + time)), (lambda time: person(120 - time))
    film = tuple(frame(*((left(t), right(t)) if t % 2 else (right(t), left(t)))) for t in range(10))
    first, second = tracks(film)
    assert np.ptp(first[:, 0, 0]) == np.ptp(second[:, 0, 0]) == 9
    assert [len(one.people) for one in smoothed(film, SmoothSettings())] == [2] * 10


def test_somebody_far_away_is_somebody_else():
    film = (frame(person(-150)), frame(person(150)))
    assert len(tracks(film)) == 2


def test_missing_points_do_not_pull():
    body = person().body.copy()
    body[4] = 0
    film = tuple(frame(replace(person(), body=body if time == 3 else person().body)) for time in range(7))
    done = smoothed(film, SmoothSettings(fill_gaps=0))
    assert not seen(done[3].people[0].body)[4]
    np.testing.assert_allclose(done[2].people[0].body[4, :2], person().body[4, :2], atol=1e-3)


def test_frames_of_several_sizes_get_one():
    film = (frame(person()), frame(person(), width=800, height=960))
    assert {(one.width, one.height) for one in smoothed(film, SmoothSettings())} == {(400, 480)}


def test_nobody_at_all():
    assert [one.people for one in smoothed((frame(), frame()), SmoothSettings())] == [(), ()]


def test_too_many_who_come_and_go():
    crowd = frame(*(person(200.0 * index) for index in range(70)), width=16000)
    with pytest.raises(PoseError, match="70 different people"):
        smoothed((crowd, *(frame(width=16000),) * 9999), OFF)
