"""Few colours: nearest ones by SciPy's distances, grids by torch's cells."""

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess import colors
from controlnet_kit.cn_core.preprocess.colors import (
    ColorGridSettings,
    ColorPaletteSettings,
    SegmentationPaletteSettings,
    color_grid,
    color_palette,
    segmentation_palette,
    snapped,
)
from controlnet_kit.cn_core.preprocess.palettes import PALETTES, classes, colours
from scipy.spatial.distance import cdist


@pytest.mark.parametrize("palette", list(PALETTES))
def test_segmentation_takes_the_nearest_colour(levels, palette):
    wanted = colours(palette)
    distances = cdist(levels.reshape(-1, 3).astype(float), wanted.astype(float), "sqeuclidean")
    expected = wanted[distances.argmin(axis=1)].reshape(levels.shape)
    assert np.array_equal(snapped(levels, wanted), expected)


@pytest.mark.parametrize("count", [2, 32, 33, 64])
def test_small_palettes_too(levels, count):
    wanted = np.random.default_rng(2).integers(0, 256, (count, 3)).astype(np.uint8)
    expected = cdist(levels.reshape(-1, 3).astype(float), wanted.astype(float), "sqeuclidean").argmin(axis=1)
    assert np.array_equal(snapped(levels, wanted), wanted[expected].reshape(levels.shape))


def test_long_pictures_go_in_bands(levels, monkeypatch):
    monkeypatch.setattr(colors, "CHUNK", 7)
    tall = np.tile(levels, (160, 1, 1))  # more than a band of 2^20 pixels
    assert np.array_equal(snapped(tall, colours("COCO"))[-72:], snapped(levels, colours("COCO")))


def test_a_map_that_was_compressed_is_clean_again():
    generator = torch.Generator().manual_seed(5)
    wanted = torch.from_numpy(colours("ADE20K")).float() / 255
    chosen = wanted[torch.randint(0, 150, (12, 16), generator=generator)].movedim(-1, 0)[None]
    clean = chosen.repeat_interleave(4, 2).repeat_interleave(4, 3)
    noisy = clean + 0.004 * torch.randn(clean.shape, generator=generator)
    settings = SegmentationPaletteSettings(palette="ADE20K")
    got = segmentation_palette(noisy, settings)
    torch.testing.assert_close(got, clean, rtol=0, atol=1e-6)
    assert torch.equal(segmentation_palette(got, settings), got)


def test_palettes_are_the_data_sets():
    ade, coco = classes("ADE20K"), classes("COCO")
    assert len(ade) == len(colours("ADE20K")) == 150 and len(coco) == len(colours("COCO")) == 133
    assert (ade["wall"], ade["sky"], ade["person"], ade["flag"]) == ("787878", "06e6e6", "96053d", "5c00ff")
    assert (coco["person"], coco["sky"], coco["rug"]) == ("dc143c", "4682b4", "fa8dff")
    assert len(set(coco.values())) == 133 and len(set(ade.values())) == 149


def test_own_palette_keeps_a_picture_of_few_colours_and_limits_others(photos):
    flags = torch.zeros(1, 3, 30, 30)
    flags[:, 0, :10], flags[:, 1, 10:20] = 1, 0.6
    assert torch.equal(color_palette(flags, ColorPaletteSettings(colors=8)), flags)
    errors = []
    for count in (2, 8, 32):
        got = color_palette(photos[:1], ColorPaletteSettings(colors=count))
        assert len(got[0].flatten(1).unique(dim=1).T) <= count
        errors.append(float((got - photos[:1]).square().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_own_palette_is_about_as_good_as_any(levels):
    """Against the best of many: uniform bits spend as many colours worse."""
    uniform = np.array([[r, g, b] for r in (64, 192) for g in (64, 192) for b in (64, 192)], np.uint8)
    ours = snapped(levels, colors.own_colours(levels, 8)).astype(float)
    assert ((ours - levels) ** 2).mean() < 0.25 * ((snapped(levels, uniform) - levels.astype(float)) ** 2).mean()


def test_grid_has_one_colour_in_each_cell(photos):
    got = color_grid(photos, ColorGridSettings(cell=24))
    cells = got.unfold(2, 24, 24).unfold(3, 24, 24).flatten(4)  # B 3 3 4 576
    assert torch.equal(cells, cells[..., :1].expand_as(cells))
    smooth = torch.linspace(0, 1, 96).expand(1, 3, 72, 96)
    means = smooth.unfold(3, 24, 24).mean(dim=-1)
    torch.testing.assert_close(color_grid(smooth, ColorGridSettings(cell=24))[..., ::24], means, rtol=0, atol=0.01)
