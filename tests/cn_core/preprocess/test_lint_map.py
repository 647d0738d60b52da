"""What is said of good maps (nothing) and of spoilt ones (what was done to them)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.lint_map import is_map, lint, upright
from controlnet_kit.cn_core.preprocess.lint_size import line_width
from controlnet_kit.cn_core.preprocess.map_kinds import MapKind, kind_of
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS
from skimage import data
from skimage.transform import resize
from torch import Tensor

MADE_BY = ("canny", "straight_lines", "xdog", "lineart", "softedge", "pencil", "segmentation_palette", "binary")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """2 3 192 256."""
    both = [
        np.asarray(resize(picture, (192, 256), anti_aliasing=True)) for picture in (data.astronaut(), data.coffee())
    ]
    return torch.from_numpy(np.stack(both)).movedim(-1, 1).float()


@pytest.fixture(scope="module")
def depth() -> Tensor:
    """1 3 192 256: hills on a slope."""
    y, x = np.mgrid[:192, :256] / 192
    hills = 0.5 * y + 0.25 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 20) + 0.1 * np.sin(7 * x) * np.cos(5 * y)
    level = torch.from_numpy((hills - hills.min()) / np.ptp(hills)).float()
    return level.expand(1, 3, 192, 256).contiguous()


def codes(kind: MapKind, maps: Tensor, **more: object) -> list[str]:
    return [finding.code for finding in lint(kind, maps, **more)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("preprocessor", MADE_BY)
def test_our_own_maps_are_fine(pictures, preprocessor):
    assert lint(kind_of(preprocessor), PREPROCESSORS[preprocessor](pictures)) == ()


@pytest.mark.parametrize("preprocessor", ["canny", "straight_lines", "xdog", "lineart", "pencil"])
def test_inverted_lines_are_told_and_turned(pictures, preprocessor):
    kind, hint = kind_of(preprocessor), PREPROCESSORS[preprocessor](pictures)
    assert codes(kind, 1 - hint) == ["inverted"]
    torch.testing.assert_close(upright(kind, 1 - hint), hint)
    assert torch.equal(upright(kind, hint), hint)
    mixed = torch.cat([hint[:1], 1 - hint[1:]])
    (finding,) = lint(kind, mixed)
    assert finding.pictures == (1,)
    torch.testing.assert_close(upright(kind, mixed), hint)


def test_kinds_that_are_not_light_on_dark_are_never_turned(depth):
    assert torch.equal(upright("depth", 1 - depth), 1 - depth)


@pytest.mark.parametrize("kind", ["lines", "normal", "pose"])
def test_photographs_are_no_maps(pictures, kind):
    assert codes(kind, pictures) == ["no map"]
    assert codes("segmentation", pictures) == ["palette"]
    assert codes("depth", pictures) == ["coloured"]
    assert codes("picture", pictures) == []


def test_empty_maps():
    (finding,) = lint("lines", torch.zeros(2, 3, 16, 16))
    assert (finding.code, finding.pictures) == ("empty", (0, 1))
    assert "black everywhere" in finding.text
    assert "white everywhere" in lint("mask", torch.ones(1, 3, 16, 16))[0].text
    assert codes("depth", torch.full((1, 3, 16, 16), 0.5)) == ["empty"]


def test_depth_that_was_saved_with_too_few_levels(depth):
    assert codes("depth", depth) == []
    assert codes("depth", (depth * 255).round() / 255) == []
    for levels in (15, 31, 60):
        assert codes("depth", (depth * levels).round() / levels) == ["banded"]
    assert codes("depth", depth * 0.1 + 0.3) == ["flat"]
    assert codes("depth", (depth * 0.1 * 255).round() / 255) == ["flat", "banded"]


def test_painted_depth_may_have_few_levels():
    planes = torch.zeros(1, 3, 96, 96)
    for number, level in enumerate((0.9, 0.2, 0.7, 0.4, 1.0, 0.3, 0.8, 0.5, 0.1)):
        row, column = divmod(number, 3)
        planes[..., 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = level
    assert codes("depth", planes) == []


def test_normals_with_channels_or_an_axis_exchanged(depth):
    entry = PREPROCESSORS["normal_from_depth"]
    normals = entry(depth)
    assert codes("normal", normals) == []
    assert codes("normal", normals.flip(1)) == ["channels"]
    turned = normals.clone()
    turned[:, 0] = 1 - turned[:, 0]
    assert codes("normal", turned) == codes("normal", entry(depth, entry.configured({"convention": "OpenGL"})))
    assert codes("normal", turned) == ["flipped"]


def test_segmentation_in_other_colours(pictures):
    smooth = torch.from_numpy(
        np.stack([cv2.GaussianBlur(one.movedim(0, -1).numpy(), (0, 0), 4) for one in pictures])
    ).movedim(-1, 1)
    entry = PREPROCESSORS["segmentation_palette"]
    ours, cocos = entry(smooth), entry(smooth, entry.configured({"palette": "COCO"}))
    assert codes("segmentation", ours) == []
    assert codes("segmentation", cocos, palette="COCO") == []
    (finding,) = lint("segmentation", cocos[:1])
    assert finding.code == "palette" and "COCO's" in finding.text
    assert codes("segmentation", ours.flip(1)) == ["channels"]
    enlarged = torch.nn.functional.interpolate(ours, scale_factor=1.5, mode="bilinear")
    assert codes("segmentation", enlarged) == ["blended", "blended"]


def test_the_size_of_the_picture(pictures):
    hint = PREPROCESSORS["canny"](pictures[:1])
    assert codes("lines", hint, target=(192, 256)) == []
    assert codes("lines", hint, target=(384, 512)) == []
    (finding,) = lint("lines", hint, target=(192, 192))
    assert finding.code == "proportions" and "256x192: 64 of its columns will be cut off" in finding.text
    assert "scale" in codes("lines", hint, target=(60, 80))
    assert "scale" in codes("lines", hint, target=(768, 1024))
    assert codes("depth", pictures[:1].mean(1, keepdim=True).expand(-1, 3, -1, -1), target=(768, 1024)) == []


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_the_width_of_lines(width):
    drawing = np.zeros((128, 128), np.bool_)
    for top in (20, 60, 100):
        drawing[top : top + width, 8:120] = True
    assert line_width(drawing) == pytest.approx(width, rel=0.15)


def test_broad_lines_are_told():
    canvas = np.zeros((512, 512), np.uint8)
    cv2.polylines(canvas, [np.array([[30, 40], [480, 100], [300, 450], [40, 300]])], True, 255, 7)
    maps = torch.from_numpy(canvas / np.float32(255)).expand(1, 3, -1, -1)
    assert codes("lines", maps, target=(512, 512)) == ["line width"]
    assert codes("soft lines", maps, target=(512, 512)) == []


def test_finished_maps_are_known(pictures):
    for preprocessor in ("canny", "softedge", "lineart"):
        hint = PREPROCESSORS[preprocessor](pictures)[0].movedim(0, -1).numpy()
        assert is_map("lines", hint) and is_map("soft lines", hint) and not is_map("lines", 1 - hint)
        assert not is_map("depth", hint)
    assert not is_map("lines", pictures[0].movedim(0, -1).contiguous().numpy())
    assert not is_map("picture", pictures[0].movedim(0, -1).contiguous().numpy())


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 300), (1, 3, 300, 2), (2, 3, 5, 5)])
@pytest.mark.parametrize("kind", ["lines", "soft lines", "depth", "normal", "segmentation", "pose", "mask", "picture"])
def test_tiny_maps_break_nothing(kind, shape):
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for maps in (noise, noise.round(), noise.half()):
        lint(kind, maps, target=(64, 64))
        upright(kind, maps)
    with pytest.raises(HintError):
        lint(kind, noise[:0])
