"""Scribbles are white on black, whatever the paper: aux has it the other way round."""

import pytest
import torch
from controlnet_kit.cn_core.preprocess.scribble import ScribbleSettings, scribble


@pytest.mark.parametrize("lines", ["dark", "light"])
def test_polarity(lines):
    drawing = torch.ones(1, 3, 30, 30)
    drawing[..., 12:14, 5:25] = 0.1
    if lines == "light":
        drawing = 1 - drawing
    expected = torch.zeros(1, 3, 30, 30)
    expected[..., 12:14, 5:25] = 1
    assert torch.equal(scribble(drawing, ScribbleSettings(lines=lines)), expected)


def test_it_is_lllyasviels_formula(photos):
    darkest = (photos * 255).round().amin(dim=1, keepdim=True)
    assert torch.equal(scribble(photos, ScribbleSettings()), (darkest < 127).float().expand(-1, 3, -1, -1))


def test_coloured_ink_counts():
    red = torch.ones(1, 3, 4, 4)
    red[:, 1:] = 0
    assert scribble(red, ScribbleSettings()).all()
