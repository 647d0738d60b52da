"""HED with its public weights: outlines where they are, every picture by itself, at any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.preprocess.learned.hed import HEDDetector, HEDSettings, ScribbleHEDSettings
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from torch import Tensor

SETTINGS = HEDSettings()


@pytest.fixture(scope="module")
def hed(weights_folder: Path) -> HEDDetector:
    return LEARNED["hed"].open([weights_folder])  # pyright: ignore[reportReturnType]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_bright_where_photographs_have_outlines(hed: HEDDetector, photos: Tensor):
    soft = hed(photos, SETTINGS)
    assert soft.shape == photos.shape and soft.min() >= 0 and soft.max() <= 1
    assert torch.equal(soft[:, 0], soft[:, 2])
    for image, edges in zip(photos, soft[:, 0].numpy(), strict=True):
        grey = cv2.cvtColor((image.movedim(0, -1).numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        outlines = cv2.dilate(cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1), 100, 200), np.ones((3, 3))) > 0
        assert edges[outlines].mean() > 2 * edges[~outlines].mean()
        assert edges.max() > 0.8


def test_follows_a_shape_exactly(hed: HEDDetector):
    """The brightest pixel of each row is within 2 pixels of the outline of a white disc on black."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    distance = (x - 64).hypot(y - 64)
    edges = hed((distance < 40).float().expand(1, 3, -1, -1), SETTINGS)[0, 0]
    rows = torch.arange(40, 88)
    assert (distance[rows, edges[rows, :64].argmax(dim=1)] - 40).abs().max() <= 2


def test_blank_pictures_have_no_outlines(hed: HEDDetector):
    """But a faint glow by the border, where the convolutions see zeros."""
    for level in (0.0, 0.5, 1.0):
        assert hed(torch.full((1, 3, 128, 128), level), SETTINGS).max() < 0.4


def test_every_picture_by_itself_and_the_same_each_time(hed: HEDDetector, photos: Tensor):
    together = hed(photos, SETTINGS)
    assert torch.equal(together, hed(photos, SETTINGS))
    alone = torch.cat([hed(photo[None], SETTINGS) for photo in photos])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 33), (37, 50), (64, 17)])
def test_odd_sizes_come_back(hed: HEDDetector, size: tuple[int, int]):
    edges = hed(torch.rand(1, 3, *size), SETTINGS)
    assert edges.shape == (1, 3, *size) and edges.isfinite().all()


def test_colours_are_read_in_their_order(hed: HEDDetector, photos: Tensor):
    """The network was trained on blue, green, red."""
    x = photos.flip(1) * 255 - torch.tensor([104.007, 116.669, 122.679])[:, None, None]
    assert torch.equal(hed(photos, SETTINGS)[:, :1], hed.network(x))


def test_safe_has_three_levels(hed: HEDDetector, photos: Tensor):
    soft, safe = hed(photos, SETTINGS), hed(photos, HEDSettings(safe=True))
    assert set(safe.unique().tolist()) == {0.0, 0.5, 1.0}
    assert (safe == 0).eq(soft < 1 / 3).all() and (safe == 1).eq(soft * 3 >= 2).all()


def test_half_precision_changes_little(weights_folder: Path, hed: HEDDetector, photos: Tensor):
    small = LEARNED["hed"].open([weights_folder])
    small.modules[0].bfloat16()
    edges = small(photos, SETTINGS)
    assert edges.dtype == torch.float32
    assert (edges - hed(photos, SETTINGS)).abs().max() < 0.05


def test_scribbles_are_strokes_along_the_strong_outlines(weights_folder: Path, hed: HEDDetector, photos: Tensor):
    scribble = LEARNED["scribble_hed"].open([weights_folder])
    strokes = scribble(photos, ScribbleHEDSettings())
    assert strokes.shape == photos.shape and set(strokes.unique().tolist()) == {0.0, 1.0}
    assert hed(photos, SETTINGS)[strokes == 1].mean() > 3 * hed(photos, SETTINGS)[strokes == 0].mean()
    shares = [scribble(photos, ScribbleHEDSettings(threshold=level)).mean() for level in (0.2, 0.5, 0.8)]
    assert shares[0] > shares[1] > shares[2]
