"""How alike two pictures are: PSNR, and SSIM (Wang et al. 2004). Shapes: B batch, C channels, H W pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA, WINDOW = 1.5, 11
"""Of SSIM's Gaussian, in pixels."""
C1, C2 = 0.01**2, 0.03**2
LARGEST_PSNR = 100.0
"""In dB, for pictures that are the same."""


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """B C H W in [0, 1] each -> B: peak signal to noise ratio in dB, at most LARGEST_PSNR."""
    error = (found - wanted).square().flatten(1).mean(dim=1)
    return (-10 * error.log10()).clamp(max=LARGEST_PSNR)


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """B C H W in [0, 1] each -> B: structural similarity, at most 1, over where the window fits in.

    The window is 11 pixels wide, or all of a smaller picture. Equals scikit-image's with Gaussian weights and
    population covariances.
    """
    mean_x, mean_y = blurred(found), blurred(wanted)
    var_x, var_y = blurred(found * found) - mean_x**2, blurred(wanted * wanted) - mean_y**2
    covariance = blurred(found * wanted) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    denominator = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    return (numerator / denominator).flatten(1).mean(dim=1)


def blurred(images: Tensor) -> Tensor:
    """B C H W -> B C h w, without the border."""
    planes = images.double().flatten(0, 1)[:, None]  # B*C 1 H W
    down, right = (gaussian(side) for side in images.shape[2:])
    return F.conv2d(F.conv2d(planes, down[None, None, :, None]), right[None, None, None]).unflatten(
        0, images.shape[:2]
    )[:, :, 0]


def gaussian(side: int) -> Tensor:
    """Weights of a window, an odd number of them that fits into a side of so many pixels."""
    reach = min(WINDOW // 2, math.ceil(side / 2) - 1)
    weights = torch.exp(-(torch.arange(-reach, reach + 1).double() ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()
