"""Which pictures are taken for maps: photographs for none, maps for what they are. All are made from scikit-image's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.looks import Look, best_palette, look
from controlnet_kit.cn_core.preprocess.normal import NormalSettings
from controlnet_kit.cn_core.preprocess.normal_axes import flipped_axis
from controlnet_kit.cn_core.preprocess.pose.draw import DrawSettings, draw
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame as Pose
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from poses import HEIGHT, WIDTH, person
from skimage import data

FOLDER = Path(data.__file__).parent
PHOTOS = ("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "gravel", "ihc", "moon", "page", "text")


def photo(name: str) -> np.ndarray:
    """H W 3 float32, 192 pixels at the short side."""
    levels = cv2.imread(str(FOLDER / f"{name}.png"))
    assert levels is not None
    scale = 192 / min(levels.shape[:2])
    return (
        cv2.resize(levels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1].astype(np.float32) / 255
    )


def mapped(preprocessor: str, picture: np.ndarray, **settings: object) -> np.ndarray:
    """H W 3 -> H W 3 float32."""
    entry = PREPROCESSORS[preprocessor]
    hint = entry(torch.from_numpy(picture.copy()).movedim(-1, 0)[None], entry.configured(settings))
    return hint[0].movedim(0, -1).numpy()


def through_jpeg(picture: np.ndarray) -> np.ndarray:
    """H W 3 -> H W 3 as a file of quality 85 has it."""
    code = cv2.imencode(".jpg", np.rint(picture * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    levels = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert levels is not None
    return levels.astype(np.float32) / 255


def disparity() -> np.ndarray:
    """H W 3 float32, near is white: real depth, of a stereo camera's ground truth."""
    values = np.load(FOLDER / "motorcycle_disp.npz")["arr_0"].astype(np.float32)
    values[~np.isfinite(values)] = 0
    depth = cv2.medianBlur(cv2.resize(values / values.max(), (569, 384), interpolation=cv2.INTER_AREA), 5)
    return np.repeat(depth[..., None], 3, axis=-1)


def drawn_pose() -> np.ndarray:
    """HEIGHT WIDTH 3 float32."""
    return draw((Pose(people=(person(),), width=WIDTH, height=HEIGHT),), DrawSettings())[0].movedim(0, -1).numpy()


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_look_like_no_map(name):
    picture = photo(name)
    for one in (picture, 1 - picture, through_jpeg(picture), np.repeat(picture.mean(-1, keepdims=True), 3, -1)):
        assert look(one) is None


@pytest.mark.parametrize("preprocessor", ["canny", "straight_lines", "xdog"])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "coins"])
def test_lines_are_seen_either_way_round_and_after_compression(preprocessor, name):
    hint = mapped(preprocessor, photo(name))
    assert look(hint) == Look(kind="lines")
    assert look(1 - hint) == Look(kind="lines", inverted=True)
    seen = look(through_jpeg(hint))
    assert seen is not None and seen.kind in ("lines", "soft lines") and not seen.inverted


@pytest.mark.parametrize("preprocessor", ["lineart", "softedge", "pencil"])
def test_soft_lines_are_seen_either_way_round(preprocessor):
    hint = mapped(preprocessor, photo("camera"))
    assert look(hint) == Look(kind="soft lines")
    assert look(1 - hint) == Look(kind="soft lines", inverted=True)


def test_other_maps_are_seen():
    assert look(disparity()) == look(np.rint(disparity() * 255) / 255) == Look(kind="depth")
    assert look(mapped("normal_from_depth", disparity(), smooth=1.0)) == Look(kind="normal")
    assert look(mapped("segmentation_palette", photo("coffee"))) == Look(kind="segmentation")
    assert look(mapped("binary", cv2.GaussianBlur(photo("coffee"), (0, 0), 9))) == Look(kind="mask")
    assert look(drawn_pose()) == Look(kind="pose")
    assert look(1 - drawn_pose()) == Look(kind="pose", inverted=True)
    assert look(np.full((8, 8, 3), 0.5, np.float32)) is None


@pytest.mark.parametrize("palette", ["ADE20K", "COCO"])
def test_the_palette_is_told(palette):
    assert best_palette(mapped("segmentation_palette", photo("coffee"), palette=palette)) == (palette, 1.0)


@pytest.mark.parametrize("relief", [0.1, 0.5])
@pytest.mark.parametrize("convention", ["ControlNet", "OpenGL", "DirectX"])
def test_the_handedness_of_normals_is_told(convention, relief):
    settings = NormalSettings(convention=convention, relief=relief)
    for depth in (disparity(), np.repeat(photo("coffee").mean(-1, keepdims=True), 3, -1)):
        normals = mapped("normal_from_depth", depth, **vars(settings))
        assert flipped_axis(np.rint(normals * 255).astype(np.float32) / 255) is (convention == "OpenGL")


def test_a_wall_has_no_handedness():
    assert not flipped_axis(np.broadcast_to(np.array([0.5, 0.5, 1], np.float32), (32, 32, 3)))
    steep = np.broadcast_to(np.array([0.99, 0.5, 0.55], np.float32), (32, 32, 3))
    assert not flipped_axis(steep)
