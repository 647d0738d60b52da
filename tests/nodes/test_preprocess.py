"""Preprocessor nodes: batch in, batch out, at the resolution asked for."""

from __future__ import annotations

import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny
from controlnet_kit.nodes.preprocess import PreprocessCanny
from random_models import run
from torch import Tensor


def hints(image: Tensor, low: int = 100, high: int = 200, resolution: int = 0) -> Tensor:
    return run(PreprocessCanny, image=image, low_threshold=low, high_threshold=high, resolution=resolution)[0]


def squares(batch: int = 2, channels: int = 3) -> Tensor:
    image = torch.zeros(batch, 48, 64, channels)
    for index in range(batch):
        image[index, 10 + index : 30, 20:50] = 1.0
    return image


def test_it_is_the_cores_canny():
    image = squares()
    expected = canny(image.movedim(-1, 1), CannySettings(low_threshold=100, high_threshold=200))
    assert torch.equal(hints(image), expected.movedim(1, -1))
    assert set(hints(image).unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(hints(image)[0], hints(image)[1])


@pytest.mark.parametrize(("resolution", "shape"), [(0, (48, 64)), (24, (24, 32)), (96, (96, 128)), (50, (50, 67))])
def test_resolution_is_the_short_side(resolution, shape):
    hint = hints(squares(), resolution=resolution)
    assert hint.shape == (2, *shape, 3)
    assert hint.sum() > 0


def test_grey_and_alpha():
    assert torch.equal(hints(squares(channels=1)), hints(squares()))
    assert torch.equal(hints(squares(channels=4)), hints(squares()))


def test_a_broken_picture_is_refused():
    with pytest.raises(HintError, match="NaN"):
        hints(torch.full((1, 8, 8, 3), float("nan")))
