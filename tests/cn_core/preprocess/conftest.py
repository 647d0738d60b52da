"""Photographs for all tests here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """2 3 72 96 float32 in [0, 1], in levels of 255: a person and a cup."""
    pictures = [
        np.asarray(resize(picture, (72, 96), anti_aliasing=True)) for picture in (data.astronaut(), data.coffee())
    ]
    levels = np.rint(np.stack(pictures) * 255).astype(np.uint8)
    return torch.from_numpy(levels).movedim(-1, 1).float() / 255


@pytest.fixture(scope="session")
def frame(photos: Tensor) -> np.ndarray:
    """The first as 72 96 3 float32."""
    return photos[0].movedim(0, -1).numpy()


@pytest.fixture(scope="session")
def levels(frame: np.ndarray) -> np.ndarray:
    """The same as uint8."""
    return np.rint(frame * 255).astype(np.uint8)
