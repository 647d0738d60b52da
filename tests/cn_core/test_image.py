"""Resized hints: proportions, and what of their content survives."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import pytest
import torch
import torch.nn.functional as F
from controlnet_kit.cn_core.image import pixel_perfect_resolution, resize_hint, resize_short_side
from controlnet_kit.cn_core.lines import thinned
from torch import Tensor

AUTO, NEAREST = "auto", "nearest-exact"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ruled(side: int, lines: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Lines of one pixel at random places: (drawing 1 3 h w, rows of the horizontal ones, columns of the others)."""
    places = torch.randperm(side // 8, generator=generator(5))[:lines] * 8
    places = places + torch.randint(0, 8, (lines,), generator=generator(6))
    rows, columns = places[: lines // 2], places[lines // 2 :]
    drawing = torch.zeros(1, 3, side, side)
    drawing[:, :, rows] = 1
    drawing[:, :, :, columns] = 1
    return drawing, rows, columns


def kept(result: Tensor, side: int, rows: Tensor, columns: Tensor) -> float:
    """Share of the lines that are in `result` where they belong, from end to end."""
    points = ((torch.arange(side) + 0.5) * result.shape[-1] / side).long()
    light = result[0, 0]
    found = [light[points[row]].mean() for row in rows] + [light[:, points[column]].mean() for column in columns]
    return sum(float(share) > 0.99 for share in found) / len(found)


@pytest.mark.parametrize(("side", "reference"), [(2048, 0.58), (3000, 0.31)])
def test_lines_of_one_pixel_survive_shrinking(side, reference):
    """ComfyUI's nearest neighbours keep a line by chance, with a probability of 1024 / side."""
    drawing, *lines = ruled(side)
    hosts, ours = (resize_hint(drawing, (1024, 1024), "crop", how) for how in (NEAREST, AUTO))
    assert kept(hosts, side, *lines) == pytest.approx(reference, abs=0.1)
    assert kept(ours, side, *lines) > 0.95
    assert ours.mean() < 1.2 * 100 / 1024  # as thin as before: a hundred lines cover at most a hundredth each


def circles(height: int, width: int) -> Tensor:
    """Binary drawing with closed curves, 1 3 h w, each component apart from the others."""
    canvas = torch.zeros(height, width, dtype=torch.uint8).numpy()
    for index in range(4):
        cv2.circle(canvas, (width // 2, height // 2), (index + 1) * min(height, width) // 10, 255, 1)
    cv2.line(canvas, (3, 5), (width // 6, height - 9), 255, 1)
    return (torch.from_numpy(canvas) > 0).float().expand(1, 3, -1, -1)


def components(drawing: Tensor) -> tuple[int, int]:
    """(connected lines, areas that they enclose or leave over)."""
    lines = (drawing[0, 0] > 0.5).to(torch.uint8).numpy()
    return cv2.connectedComponents(lines, connectivity=8)[0] - 1, cv2.connectedComponents(1 - lines, connectivity=4)[
        0
    ] - 1


@pytest.mark.parametrize("size", [(512, 512), (299, 333), (1024, 1024), (1500, 900), (640, 637)])
def test_drawings_keep_their_connections_and_their_colours(size):
    drawing = circles(640, 640)
    result = resize_hint(drawing, size, "stretch", AUTO)
    assert result.shape == (1, 3, *size)
    assert set(result.unique().tolist()) == {0.0, 1.0}
    assert components(result) == components(drawing) == (5, 5)
    assert torch.equal(thinned(result[0, 0] > 0), result[0, 0] > 0) or max(size) < 640, "one pixel wide"
    inverted = resize_hint(1 - drawing, size, "stretch", AUTO)
    assert torch.equal(inverted, 1 - result)


def test_wide_parts_of_a_drawing_stay_wide():
    drawing = circles(640, 640).clone()
    drawing[:, :, 580:600, 400:430] = 1
    result = resize_hint(drawing, (1280, 1280), "stretch", AUTO)
    assert result[0, 0, 1160:1200, 800:860].min() == 1
    assert resize_hint(drawing, (320, 320), "stretch", AUTO)[0, 0, 290:300, 200:215].min() == 1


def test_soft_lines_keep_their_contrast():
    drawing = F.avg_pool2d(ruled(600, lines=10)[0], 3, 1, 1)
    levels = torch.linspace(0.8, 1, 600) * drawing  # more greys than labels have
    for lines in (levels, 1 - levels):
        result = resize_hint(lines, (200, 200), "stretch", AUTO)
        assert (result - lines.flatten()[0]).abs().max() == (lines - lines.flatten()[0]).abs().max()


def labels(count: int, side: int) -> Tensor:
    """Cells in `count` colours, 1 3 h w."""
    colours = torch.rand(count, 3, generator=generator(1))
    cells = torch.randint(0, count, (side // 15 + 1, side // 15 + 1), generator=generator(2))
    return colours[cells].repeat_interleave(15, 0).repeat_interleave(15, 1)[:side, :side].movedim(-1, 0)[None]


@pytest.mark.parametrize("size", [(80, 80), (199, 150), (77, 301), (320, 320)])
def test_label_colours_are_those_that_came_in(size):
    before = labels(120, 240)
    after = resize_hint(before, size, "stretch", AUTO)
    colours = {tuple(colour) for colour in before[0].flatten(1).T.tolist()}
    assert {tuple(colour) for colour in after[0].flatten(1).T.tolist()} <= colours
    assert len(after[0].flatten(1).unique(dim=1)[0]) > 80


def test_a_pixel_gets_the_label_of_most_of_its_area():
    colours = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.3], [0.5, 0.5, 0.0]])
    cells = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 1], [2, 2, 1, 0], [2, 1, 0, 0]])
    picture = colours[cells].movedim(-1, 0)[None].repeat_interleave(8, 2).repeat_interleave(8, 3)  # 32 x 32
    result = resize_hint(picture, (2, 2), "stretch", AUTO)
    assert torch.equal(result[0].movedim(0, -1), colours[torch.tensor([[0, 1], [2, 0]])])


def test_thin_limbs_of_a_skeleton_survive():
    picture = torch.zeros(1, 3, 600, 600)
    for index, column in enumerate((50, 151, 202, 403)):
        picture[0, :, 20:580, column] = torch.tensor([1.0, index / 4, 0.2])[:, None]
    result = resize_hint(picture, (200, 200), "stretch", AUTO)
    assert [tuple(colour) for colour in result[0, :, 100, [16, 50, 67, 134]].T.tolist()] == [
        tuple(colour) for colour in picture[0, :, 300, [50, 151, 202, 403]].T.tolist()
    ]


def test_photographs_are_averaged_or_interpolated():
    picture = torch.rand(1, 3, 60, 90, generator=generator(1))
    assert torch.equal(resize_hint(picture, (31, 45), "stretch", AUTO), F.interpolate(picture, (31, 45), mode="area"))
    bicubic = F.interpolate(picture, (70, 100), mode="bicubic").clamp(picture.min(), picture.max())
    assert torch.equal(resize_hint(picture, (70, 100), "stretch", AUTO), bicubic)
    depth = torch.linspace(0.2, 0.8, 60)[:, None].expand(1, 3, 60, 90)  # 60 greys are no labels
    assert torch.equal(resize_hint(depth, (20, 30), "stretch", AUTO), F.interpolate(depth, (20, 30), mode="area"))


def test_each_picture_of_a_batch_and_alpha_go_by_themselves():
    batch = torch.cat([circles(90, 90), labels(20, 90), torch.rand(1, 3, 90, 90, generator=generator(1))])
    alpha = torch.zeros(3, 1, 90, 90)
    alpha[:, :, 20:50, 10:80] = 1
    result = resize_hint(torch.cat([batch, alpha], dim=1), (60, 60), "stretch", AUTO)
    singles = [resize_hint(picture[None], (60, 60), "stretch", AUTO) for picture in batch]
    assert torch.equal(result[:, :3], torch.cat(singles))
    assert set(result[:, 3:].unique().tolist()) == {0.0, 1.0}
    assert result[0, 3, 14:33, 7:53].min() == 1


def test_crop_keeps_the_middle():
    picture = torch.rand(2, 3, 100, 152, generator=generator(1))
    for how in (AUTO, NEAREST):
        cut = resize_hint(picture[:, :, :, 26:-26], (50, 50), "stretch", how)
        assert torch.equal(resize_hint(picture, (50, 50), "crop", how), cut)
    assert resize_hint(picture[:, :, :3, :], (50, 20), "crop", AUTO).shape == (2, 3, 50, 20)


def test_fill_keeps_all_on_a_ground_of_the_borders_colour():
    picture = torch.rand(1, 4, 64, 128, generator=generator(1))
    picture[:, :3, :, 100:] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    picture[:, :3, 0] = picture[:, :3, -1] = torch.tensor([0.1, 0.2, 0.3])[:, None]
    result = resize_hint(picture, (100, 64), "fill", AUTO)
    assert torch.equal(result[:, :, 34:66], resize_hint(picture, (32, 64), "stretch", AUTO))
    assert torch.equal(result[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3, 1.0]))
    assert torch.equal(result[:, :, 66:], result[:, :, :1, :1].expand(1, 4, 34, 64))


def test_a_hint_of_the_right_size_is_left_alone():
    picture = circles(64, 96)
    assert resize_hint(picture, (64, 96), "stretch", AUTO) is picture
    assert torch.equal(resize_hint(picture, (64, 96), "crop", AUTO), picture)
    assert torch.equal(resize_hint(picture, (64, 96), "fill", AUTO), picture)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 15), (264, 8)])
@pytest.mark.parametrize("mode", ["stretch", "crop", "fill"])
def test_odd_sizes(channels, size, mode):
    contents: list[Callable[[int, int], Tensor]] = [torch.rand, torch.zeros, torch.ones, torch.eye]
    for content in contents:
        picture = content(33, 65).expand(2, channels, 33, 65)
        for how in (AUTO, NEAREST, "area", "bicubic"):
            result = resize_hint(picture, size, mode, how)
            assert result.shape == (2, channels, *size)
            assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(
    ("hint", "target", "mode", "resolution"),
    [
        ((768, 512), (512, 512), "crop", 512),
        ((768, 512), (512, 512), "fill", 341),
        ((768, 512), (1024, 512), "stretch", 683),
        ((480, 640), (1216, 832), "crop", 1216),
        ((480, 640), (1216, 832), "fill", 624),
    ],
)
def test_pixel_perfect_resolution(hint, target, mode, resolution):
    assert pixel_perfect_resolution(hint, target, mode) == resolution


def test_a_preprocessor_at_that_resolution_needs_no_resizing():
    picture = torch.rand(1, 3, 70, 100, generator=generator(1))
    hint = resize_short_side(picture, pixel_perfect_resolution((70, 100), (140, 150), "crop"))
    assert hint.shape == (1, 3, 140, 200)
    assert torch.equal(resize_hint(hint, (140, 150), "crop", AUTO), hint[:, :, :, 25:-25])
