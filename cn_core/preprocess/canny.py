"""Canny edges: thin white lines on black (Canny 1986, OpenCV's implementation).

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CannySettings:
    """Hysteresis thresholds on the gradient of 8-bit pictures, 0 to 255 by convention."""

    low_threshold: int = 100
    """An edge goes on while its gradient is above this."""
    high_threshold: int = 200
    """An edge starts where its gradient is above this."""


def canny_edges(image: np.ndarray, settings: CannySettings) -> np.ndarray:
    """H W 3 uint8 RGB -> H W uint8, 255 on edges and 0 elsewhere."""
    return cv2.Canny(image, settings.low_threshold, settings.high_threshold)


def canny(images: Tensor, settings: CannySettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W, 1 on edges and 0 elsewhere, on the device it came from."""
    pixels = images.clamp(0, 1).mul(255).round().to(device="cpu", dtype=torch.uint8).movedim(1, -1).contiguous().numpy()
    edges = np.stack([canny_edges(image, settings) for image in pixels])
    hints = torch.from_numpy(edges).to(images.device).to(images.dtype).div(255)
    return hints[:, None].expand(-1, 3, -1, -1).contiguous()
