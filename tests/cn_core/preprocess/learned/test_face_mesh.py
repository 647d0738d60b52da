"""Faces by MediaPipe's real weights in a photograph whose points were read off by eye, and how they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned.face_mesh import (
    CONTOURS,
    ENTRIES,
    PUPILS,
    FaceDepthSettings,
    FaceDetector,
    FaceMeshSettings,
    draw_contours,
)
from controlnet_kit.cn_core.preprocess.learned.faces import Face, box_of, triangles
from controlnet_kit.cn_core.preprocess.learned.mediapipe import FACE
from controlnet_kit.cn_core.preprocess.learned.relief import fill
from skimage import data
from torch import Tensor

DEFAULT = FaceMeshSettings()
RIGHT_IRIS, LEFT_IRIS, NOSE, CHIN, FOREHEAD, RIGHT_CHEEK, LEFT_CHEEK, UPPER_LIP = 468, 473, 4, 152, 10, 234, 454, 13
BY_EYE = {RIGHT_IRIS: (202, 102), LEFT_IRIS: (247, 102), NOSE: (223, 127), CHIN: (223, 176), UPPER_LIP: (223, 142)}
"""In skimage's astronaut, pixels."""


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """1 3 512 512: a woman to the waist, in a space suit."""
    return torch.from_numpy(data.astronaut()).movedim(-1, 0)[None] / 255


def opened(index: int, folder: Path) -> FaceDetector:
    detector = ENTRIES[index].open([folder])
    assert isinstance(detector, FaceDetector)
    return detector


@pytest.fixture(scope="module")
def contours(weights_folder: Path) -> FaceDetector:
    return opened(0, weights_folder)


@pytest.fixture(scope="module")
def relief(weights_folder: Path) -> FaceDetector:
    return opened(1, weights_folder)


def faces(detector: FaceDetector, image: Tensor, settings: FaceMeshSettings = DEFAULT) -> list[Face]:
    return detector.faces(image[0].movedim(0, -1).contiguous().numpy(), settings)


@pytest.fixture(scope="module")
def face(contours: FaceDetector, astronaut: Tensor) -> Face:
    (face,) = faces(contours, astronaut)
    return face


def test_landmarks_are_where_her_face_is(face: Face):
    assert face.shape == (478, 3)
    for index, place in BY_EYE.items():
        np.testing.assert_allclose(face[index, :2], place, atol=4)
    (left, top), (right, bottom) = box_of(face)
    assert 165 < left < 190 and 60 < top < 85 and 258 < right < 285 and 165 < bottom < 185
    assert face[RIGHT_CHEEK, 0] < face[NOSE, 0] < face[LEFT_CHEEK, 0]
    assert face[FOREHEAD, 1] < face[NOSE, 1] < face[UPPER_LIP, 1] < face[CHIN, 1]


def test_irises_are_rings_within_the_eyes(face: Face):
    for middle, corners in ((RIGHT_IRIS, (33, 133)), (LEFT_IRIS, (362, 263))):
        assert face[corners[0], 0] < face[middle, 0] < face[corners[1], 0]
        radii = np.linalg.norm(face[middle + 1 : middle + 5, :2] - face[middle, :2], axis=1)
        assert radii.max() < 1.3 * radii.min() < 10


def test_the_nose_is_nearest_and_the_cheeks_are_far(face: Face):
    assert face[:468, 2].argmin() in (1, 4)
    assert face[NOSE, 2] < face[CHIN, 2] < face[RIGHT_CHEEK, 2]


def test_a_mirrored_picture_mirrors_the_landmarks(contours: FaceDetector, astronaut: Tensor, face: Face):
    (mirrored,) = faces(contours, astronaut.flip(-1))
    for one, other in ((RIGHT_IRIS, LEFT_IRIS), (LEFT_IRIS, RIGHT_IRIS), (NOSE, NOSE), (RIGHT_CHEEK, LEFT_CHEEK)):
        np.testing.assert_allclose(mirrored[one, :2], (512 - face[other, 0], face[other, 1]), atol=6)


def test_a_turned_head_turns_the_landmarks(contours: FaceDetector, astronaut: Tensor, face: Face):
    """In a quarter of a turn x becomes y; more than this the detector does not find."""
    import cv2

    turn = cv2.getRotationMatrix2D((222, 120), 40, 1)
    turned = cv2.warpAffine(astronaut[0].movedim(0, -1).numpy(), turn, (512, 512))
    (found,) = contours.faces(turned, DEFAULT)
    np.testing.assert_allclose(found[:, :2], face[:, :2] @ turn[:, :2].T + turn[:, 2], atol=8)


def test_two_faces_side_by_side(contours: FaceDetector, astronaut: Tensor):
    both = torch.cat([astronaut, astronaut], dim=-1)
    left, right = sorted(faces(contours, both), key=lambda face: face[NOSE, 0])
    np.testing.assert_allclose(right[:468, 0] - left[:468, 0], 512, atol=6)
    assert len(faces(contours, both, FaceMeshSettings(max_faces=1))) == 1
    assert not faces(contours, both, FaceMeshSettings(small=False))


def test_small_faces_are_left_out(contours: FaceDetector, astronaut: Tensor, face: Face):
    size = int(np.ptp(box_of(face), axis=0).min())
    assert not faces(contours, astronaut, FaceMeshSettings(min_size=size + 2))
    assert faces(contours, astronaut, FaceMeshSettings(min_size=size))


def test_contours_have_their_colours_where_their_parts_are(contours: FaceDetector, astronaut: Tensor, face: Face):
    hint = (contours(astronaut, DEFAULT)[0] * 255).round().byte().movedim(0, -1).numpy()
    colors = {tuple(color) for color in hint.reshape(-1, 3).tolist()}
    assert colors == {(0, 0, 0), *(color for color, _ in CONTOURS), *(color for _, color in PUPILS)}
    for index, color in PUPILS:
        x, y = face[index, :2].astype(int)
        assert (hint[y - 2 : y + 2, x - 2 : x + 2] == color).all()
    right, left = (np.nonzero((hint == color).all(axis=-1))[1].mean() for color in ((180, 200, 10), (10, 200, 180)))
    assert right < face[NOSE, 0] < left
    outside = np.any(hint, axis=-1)
    outside[58:190, 160:290] = False
    assert not outside.any()


def test_lines_end_at_the_border(face: Face):
    moved = face - np.array([face[NOSE, 0], 0, 0])  # half of it is outside
    hint = draw_contours([moved], 200, 60)
    assert hint.any() and hint.shape == (200, 60, 3)
    assert not (hint == PUPILS[0][1]).all(axis=-1).any() and (hint == PUPILS[1][1]).all(axis=-1).any()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("size", [(256, 256), (1, 1), (5, 800)])
def test_no_face_gives_a_black_hint_and_a_line_in_the_log(
    entry, size: tuple[int, int], weights_folder: Path, caplog: pytest.LogCaptureFixture
):
    hint = entry.open([weights_folder])(torch.full((1, 3, *size), 0.5), entry.settings())
    assert hint.shape == (1, 3, *size) and not hint.any()
    assert "No faces were found in pictures [0]" in caplog.text


def test_a_batch_is_its_pictures_in_their_own_type(contours: FaceDetector, astronaut: Tensor):
    batch = torch.cat([astronaut.flip(-1), torch.zeros_like(astronaut), astronaut])
    hints = contours(batch, DEFAULT)
    torch.testing.assert_close(hints, torch.cat([contours(one[None], DEFAULT) for one in batch]), rtol=0, atol=0)
    assert contours(astronaut.half(), DEFAULT).dtype == torch.half


def test_depth_is_white_at_the_nose_and_black_around(relief: FaceDetector, astronaut: Tensor, face: Face):
    hint = relief(astronaut, FaceDepthSettings(far=0.25))[0]
    assert torch.equal(hint[0], hint[1]) and torch.equal(hint[0], hint[2])
    level = hint[0].numpy()
    x, y = face[NOSE, :2].astype(int)
    assert level[y - 6 : y + 6, x - 6 : x + 6].max() == level.max() > 0.98
    assert 0.25 <= level[level > 0].min() < 0.4
    assert not level[:60].any() and not level[190:].any()
    assert len(np.unique(level)) > 2000  # floats, not bytes
    area = (level > 0).sum() / np.ptp(box_of(face), axis=0).prod()
    assert 0.65 < area < 0.9  # an ellipse has pi / 4


def test_the_mesh_is_one_surface_of_898_triangles(weights_folder: Path):
    mesh = triangles(weights_folder / FACE.file)
    assert mesh.shape == (898, 3)
    assert (np.unique(mesh) == np.arange(468)).all()
    edges = np.sort(mesh[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert set(counts) == {1, 2}
    assert (counts == 1).sum() == 36  # its border is the oval


def test_triangles_are_filled_by_the_nearest():
    canvas = np.zeros((20, 30), np.float32)
    slope = [[[2, 2, 0.2], [22, 2, 0.2], [2, 12, 0.8]], [[22, 2, 0.2], [22, 12, 0.8], [2, 12, 0.8]]]
    far = [[[0, 0, 0.1], [60, 0, 0.1], [0, 40, 0.1]]]
    for order in (slope + far, far + slope):
        canvas[:] = 0
        fill(canvas, np.array(order))
        y = np.arange(2, 12) + 0.5
        np.testing.assert_allclose(canvas[2:12, 2:22], np.tile(0.2 + 0.06 * (y - 2)[:, None], (1, 20)), atol=1e-6)
        assert (canvas[14:, :2] == np.float32(0.1)).all()


def test_triangles_from_their_edge_or_off_the_canvas_are_not_seen():
    canvas = np.zeros((8, 8), np.float32)
    fill(canvas, np.array([[[0, 0, 1], [8, 8, 1], [4, 4, 1]], [[-9, -9, 1], [-1, -9, 1], [-9, -1, 1]]], np.float32))
    assert not canvas.any()
