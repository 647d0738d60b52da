"""Pictures with holes, as inpainting ControlNets want them, and pictures with room around them.

Shapes: B batch, H W pixels, h w pixels of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import HintError
from .frames import checked
from .settings import Settings, between, one_of

Fill = Literal["-1", "black"]
FILL_TIP = "-1: for lllyasviel's inpaint ControlNets. black: for xinsir's and other unions."
SIDE_TIP = "Pixels to add on this side."


@dataclass(frozen=True, kw_only=True)
class InpaintSettings(Settings):
    """What the hole is filled with."""

    fill: Fill = field(default="-1", metadata=one_of(get_args(Fill), FILL_TIP))


@dataclass(frozen=True, kw_only=True)
class OutpaintSettings(Settings):
    """Where the picture grows."""

    left: int = field(default=0, metadata=between(0, 8192, SIDE_TIP, step=8))
    top: int = field(default=0, metadata=between(0, 8192, SIDE_TIP, step=8))
    right: int = field(default=256, metadata=between(0, 8192, SIDE_TIP, step=8))
    bottom: int = field(default=0, metadata=between(0, 8192, SIDE_TIP, step=8))
    overlap: int = field(
        default=16,
        metadata=between(0, 1024, "How far into the old picture it is made anew, next to the new parts, in pixels."),
    )
    fill: Fill = field(default="-1", metadata=one_of(get_args(Fill), FILL_TIP))


def inpaint_hint(images: Tensor, masks: Tensor, settings: InpaintSettings) -> Tensor:
    """B 3 H W in [0, 1] and B h w (or B 1 h w) -> B 3 H W: -1 or 0 where the mask is above a half.

    All else is bitwise as it was. One picture goes with many masks and one mask with many pictures. Masks are resized
    bilinear. Raises HintError for empty or broken pictures and masks, and for batches that do not fit.
    """
    paired(len(checked(images)), len(masks := whole_mask(masks)), "pictures", "masks")
    if not images.isfinite().all():
        raise HintError("A picture has NaN or infinite values. Look at the node that made it.")
    masks = F.interpolate(masks.to(images.device, torch.float32), size=images.shape[2:], mode="bilinear")
    filled = images.new_tensor(-1.0 if settings.fill == "-1" else 0.0)
    return torch.where(masks > 0.5, filled, images)


def whole_mask(masks: Tensor) -> Tensor:
    """h w, B h w or B 1 h w -> B 1 h w. Raises HintError for anything else, and for NaN and infinite values."""
    shape = tuple(masks.shape)
    masks = masks[None] if masks.ndim == 2 else masks
    masks = masks[:, None] if masks.ndim == 3 else masks
    if masks.ndim != 4 or masks.shape[1] != 1 or not masks.numel():
        raise HintError(f"The mask is {shape}; it has to be (batch, height, width), and not empty.")
    if not masks.isfinite().all():
        raise HintError("The mask has NaN or infinite values. Look at the node that made it.")
    return masks


def paired(first: int, second: int, names: str, others: str) -> int:
    """The size of a batch made of two that are equal, or one of them 1. Raises HintError otherwise."""
    if first != second and 1 not in (first, second):
        raise HintError(f"There are {first} {names} and {second} {others}. Make them as many, or one of them a single.")
    return max(first, second)


def outpaint(images: Tensor, settings: OutpaintSettings) -> tuple[Tensor, Tensor, Tensor]:
    """B 3 H W -> (hint B 3 H' W', mask B H' W' with 1 where the picture is made, picture with its border repeated)."""
    sides = (settings.left, settings.right, settings.top, settings.bottom)
    height, width = checked(images).shape[2:]
    checked(images[:1, :, :1, :1].expand(-1, -1, height + sum(sides[2:]), width + sum(sides[:2])))
    larger = F.pad(images.float(), sides, mode="replicate").to(images.dtype)
    extents = (width, width, height, height)
    most = [min(settings.overlap, (extent - 1) // 2) for extent in extents]
    kept = [overlap if side else 0 for side, overlap in zip(sides, most, strict=True)]
    mask = torch.ones(len(images), *larger.shape[2:], device=images.device)
    rows = slice(settings.top + kept[2], settings.top + height - kept[3])
    columns = slice(settings.left + kept[0], settings.left + width - kept[1])
    mask[:, rows, columns] = 0
    return inpaint_hint(larger, mask, InpaintSettings(fill=settings.fill)), mask, larger
