"""Effect masks: where a control acts, at any size in pixels, brought to the size of each residual.

Shapes: B masks, F masks or one for all, h w pixels, R rows of an evaluation, C channels, H W a residual's size, L
tokens, D width. Values in [0, 1]: 1 is full effect, 0 is none.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ControlNetKitError

Extent = Literal["everywhere", "nowhere", "partly"]

OVERSHOOT = 0.5
"""How far outside [0, 1] values may lie that come from sharpening or resizing; beyond it they are something else."""
LEVELS = 1 << 16


def prepare(mask: Tensor) -> Tensor:
    """The host's MASK (B h w, also h w or B 1 h w) -> B 1 h w, float32, clamped to [0, 1].

    Raises ControlNetKitError for other shapes, empty masks, NaN, and ranges such as 0 to 255.
    """
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim not in (2, 3) or not mask.numel():
        raise ControlNetKitError(
            f"A mask of shape {tuple(mask.shape)}: expected batch, height and width, none of them 0. "
            "Turn pictures into masks first."
        )
    mask = mask.float().reshape(-1, 1, *mask.shape[-2:])
    if not mask.isfinite().all():
        raise ControlNetKitError("The mask has NaN or infinite values. Look at the node that made it.")
    low, high = (float(value) for value in mask.aminmax())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ControlNetKitError(f"The mask has values from {low:g} to {high:g}; scale them to 0 to 1.")
    return mask.clamp(0, 1)


def extent(mask: Tensor) -> Extent:
    """Whether a mask is 1 at every pixel, 0 at every pixel, or neither."""
    low, high = mask.aminmax()
    if low == high and float(low) in (0.0, 1.0):
        return "everywhere" if low else "nowhere"
    return "partly"


def fit(mask: Tensor, residual: Tensor, latent: tuple[int, int]) -> Tensor:
    """A mask (F 1 h w) as a factor for a residual, in its dtype and on its device.

    residual R C H W: F 1 H W. residual R L D: F L 1, over the transformer's grid of ceil(h/2) x ceil(w/2) tokens for
    `latent` h w, repeated for each frame of a video; raises ControlNetKitError for an L that is no multiple of it.
    F is 1 or R: masks for single frames are tiled to the rows by the caller.
    """
    mask = mask.to(residual.device)
    if residual.ndim == 4:
        return resized(mask, (residual.shape[2], residual.shape[3])).to(residual.dtype)
    rows, columns = (ceil(side / 2) for side in latent)
    tokens = residual.shape[1]
    if residual.ndim != 3 or tokens % (rows * columns):
        raise ControlNetKitError(
            f"Cannot mask a residual of shape {tuple(residual.shape)}: a latent of {latent[0]} x {latent[1]} has "
            f"{rows * columns} tokens, and {tokens} is no multiple of it. Use this ControlNet without an effect mask."
        )
    grid = resized(mask, (rows, columns)).flatten(1)[:, :, None]  # F L 1
    return grid.repeat(1, tokens // (rows * columns), 1).to(residual.dtype)


def resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """F 1 h w -> F 1 H W: bilinear, over an area that grows when shrinking."""
    if tuple(mask.shape[2:]) == size:
        return mask
    return settled(F.interpolate(mask.float(), size=size, mode="bilinear", antialias=True))


def settled(mask: Tensor) -> Tensor:
    """Rounded to 1/65536: the average of many ones, which may be a rounding away from one, is exactly one again."""
    return (mask * LEVELS).round() / LEVELS


def feather(mask: Tensor, radius_px: float) -> Tensor:
    """F 1 h w with soft borders: a Gaussian that reaches `radius_px` (2 sigma); 0 hands back the very same value."""
    if not 0 <= radius_px < float("inf"):
        raise ControlNetKitError(f"A feather of {radius_px:g} pixels: it takes 0 (sharp) or more.")
    if radius_px == 0:
        return mask
    blurred = mask.float()
    for axis in (2, 3):
        reach = min(ceil(radius_px), mask.shape[axis] - 1)  # reflection has no more pixels than that
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=mask.device)
        kernel = torch.exp(-2 * (offsets / radius_px) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
        padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        blurred = F.conv2d(F.pad(blurred, padding, mode="reflect"), kernel)
    return settled(blurred).clamp(0, 1)


def from_hint(hint: Tensor, *, threshold: float = 0.05, reach_px: int = 16, feather_px: float = 16) -> Tensor:
    """A mask of where a hint (B 3 h w in [0, 1]) says something: B 1 h w. Black leaves the model free.

    That is where a channel is brighter than `threshold`, widened by `reach_px` (square), then feathered. A hint without
    any such pixel gives a mask of zeros, that is no control at all: see `extent`.
    """
    if reach_px < 0:
        raise ControlNetKitError(f"A reach of {reach_px} pixels: it takes 0 or more.")
    said = (hint.amax(dim=1, keepdim=True) > threshold).float()
    rows = F.max_pool2d(said, (2 * reach_px + 1, 1), 1, (reach_px, 0))
    return feather(F.max_pool2d(rows, (1, 2 * reach_px + 1), 1, (0, reach_px)), feather_px)
