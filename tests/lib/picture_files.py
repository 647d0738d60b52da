"""Pictures of the tiny world as files, for tests of data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from controlnet_kit.cn_core.preprocess.canny import CannySettings, canny_edges
from controlnet_kit.training.synth import world
from PIL import Image

Make = Callable[..., Path]


def picture(seed: int) -> np.ndarray:
    """128 128 3 uint8."""
    return world.compose(seed).image


def edges(image: np.ndarray) -> np.ndarray:
    """Its Canny map, H W."""
    return canny_edges(image, CannySettings())


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
