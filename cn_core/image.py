"""Resizing of pictures, and of hints: drawings whose lines and label colours have to survive it.

Shapes: B batch, C channels, h w pixels before, H W pixels after; K samples of an output pixel, N pixels of a list.
Values are in [0, 1] unless told otherwise.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .lines import Size, extreme, is_thin, redrawn

ResizeMode = Literal["stretch", "crop", "fill"]
"""Ignore the proportions; keep them and what lies around the centre; keep them and all of the picture."""
Resampler = Literal["auto", "nearest-exact", "area", "bicubic"]
"""auto: by content, so that lines and label colours survive; see `resample`."""

COLOURS = 200
"""A picture with more colours than these is no segmentation map."""
GREYS = 16
"""The same for pictures without colour: more levels make it a depth map, or soft lines."""
PROBED = 1 << 14
"""Pixels that are enough to tell a photograph by."""
SAMPLES = 4
"""Most samples of an output pixel in either direction that vote for its label."""


def resize_short_side(images: Tensor, resolution: int) -> Tensor:
    """B C H W with the shorter side at `resolution` pixels and its proportions kept; 0 hands back the very same value.

    Cubic interpolation over an area that grows when shrinking, so that thin lines fade instead of breaking.
    """
    short = min(images.shape[2:])
    if resolution in (0, short):
        return images
    height, width = (round(side * resolution / short) for side in images.shape[2:])
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def pixel_perfect_resolution(hint_size: Size, target: Size, mode: ResizeMode) -> int:
    """Short side in pixels at which a preprocessor makes the hint that `resize_hint` then leaves as it is."""
    scales = [new / old for new, old in zip(target, hint_size, strict=True)]
    return round((min if mode == "fill" else max)(scales) * min(hint_size))


def resize_hint(hints: Tensor, size: Size, mode: ResizeMode, resampler: Resampler) -> Tensor:
    """B C h w -> B C H W in the range of the values that came in. Channels after the third (alpha) go by themselves.

    "crop" with "nearest-exact" is what ComfyUI does to hints. "fill" puts the hint in the middle of a ground that has
    the median colour of its border, and alpha 1 (as sd-webui-controlnet, whose three modes these are).
    """
    if mode == "crop":
        hints = cropped(hints, size)
    if mode == "fill":
        return filled(hints, size, resampler)
    if tuple(hints.shape[2:]) == size:
        return hints
    if resampler == "auto":
        return torch.stack([torch.cat([resample(part, size) for part in hint.split(3)]) for hint in hints])
    return F.interpolate(hints, size=size, mode=resampler).clamp(hints.min(), hints.max())


def cropped(hints: Tensor, size: Size) -> Tensor:
    """B C h w -> the part around the centre that has the proportions of `size`; ComfyUI's arithmetic, to the bit."""
    height, width = hints.shape[2:]
    theirs, ours = width / height, size[1] / size[0]
    left = min(round((width - width * (ours / theirs)) / 2), (width - 1) // 2) if theirs > ours else 0
    top = min(round((height - height * (theirs / ours)) / 2), (height - 1) // 2) if theirs < ours else 0
    return hints[:, :, top : height - top, left : width - left]


def filled(hints: Tensor, size: Size, resampler: Resampler) -> Tensor:
    """B C h w -> B C H W with all of the hint in the middle."""
    scale = min(new / old for new, old in zip(size, hints.shape[2:], strict=True))
    inner = [min(max(round(old * scale), 1), new) for new, old in zip(size, hints.shape[2:], strict=True)]
    height, width = inner
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    middle = resize_hint(hints, (height, width), "stretch", resampler)
    border = torch.cat([hints[:, :, 0], hints[:, :, -1], hints[:, :, :, 0], hints[:, :, :, -1]], dim=2)  # B C N
    ground = border.median(dim=2).values
    ground[:, 3:] = 1
    result = ground[:, :, None, None].expand(*hints.shape[:2], *size).clone()
    result[:, :, top : top + height, left : left + width] = middle
    return result


def resample(picture: Tensor, size: Size) -> Tensor:
    """C h w -> C H W, C up to 3, in the way that its content asks for.

    Thin lines are drawn anew (two colours) or keep their contrast (soft ones, when shrinking). Few colours are labels.
    All else is a photograph, a depth map or the like: averaged over areas when shrinking, cubic when enlarging.
    """
    grey = bool((picture[1:] == picture[:1]).all())
    content = picture[:1] if grey else picture
    shrinks = max(old / new for old, new in zip(picture.shape[1:], size, strict=True))
    codes = encoded(content)
    colours = count_colours(codes)
    if (grey or colours == 2) and is_thin(content.mean(dim=0), shrinks) and (colours == 2 or shrinks > 1):
        result = in_two_colours(content, codes, size) if colours == 2 else extreme(content, size)
    elif colours <= (GREYS if grey else COLOURS):
        result = voted(content, codes, size)
    else:
        method = "area" if shrinks > 1 else "bicubic"
        result = F.interpolate(content[None], size=size, mode=method)[0].clamp(content.min(), content.max())
    return result.expand(len(picture), *size)


def encoded(picture: Tensor) -> Tensor:
    """C h w -> h w: a whole number from 0 (black) to 2^24 - 1 for each eight-bit colour."""
    result = torch.zeros(picture.shape[1:], dtype=torch.int32, device=picture.device)
    for level in picture:
        result = (result << 8) + (level * 255).round().clamp(0, 255).int()
    return result


def count_colours(codes: Tensor) -> int:
    """How many colours occur; for a photograph some number above COLOURS."""
    flat = codes.flatten()
    few = len(flat[:: max(len(flat) // PROBED, 1)].unique())
    if few > COLOURS:
        return few
    seen = torch.zeros(1 << 24, dtype=torch.bool, device=codes.device)
    seen[flat.long()] = True
    return int(seen.count_nonzero())


def in_two_colours(picture: Tensor, codes: Tensor, size: Size) -> Tensor:
    """C h w with the rarer of its two colours for lines -> C H W."""
    lines = codes == codes.max()
    lines = lines if lines.float().mean() <= 0.5 else ~lines
    places = [int(lines.flatten().int().argmin()), int(lines.flatten().int().argmax())]
    return picture.flatten(1)[:, places][:, redrawn(lines, size).long()]


def voted(picture: Tensor, codes: Tensor, size: Size) -> Tensor:
    """C h w -> C H W: the colour that takes most of the area of each pixel, so that no new colours arise.

    Black counts for less, the more the picture shrinks: it is the ground on which skeletons have thin limbs.
    """
    counts = [min(ceil(old / new), SAMPLES) for old, new in zip(picture.shape[1:], size, strict=True)]
    rows, columns = (
        ((torch.arange(new * count, device=picture.device) + 0.5) * (old / (new * count))).long().view(new, count)
        for new, old, count in zip(size, picture.shape[1:], counts, strict=True)
    )  # H K, W K
    places = rows[:, None, :, None] * picture.shape[2] + columns[None, :, None, :]  # H W K K
    places = places.flatten(2).flatten(0, 1).T  # K N
    samples = codes.flatten()[places]
    chosen = places[len(places) // 2].clone()
    mixed = (samples != samples[:1]).any(dim=0)
    some = samples[:, mixed]
    votes = torch.stack([(some == sample).sum(dim=0) for sample in some]) / torch.where(some == 0, max(counts), 1)
    chosen[mixed] = places[:, mixed].gather(0, votes.argmax(dim=0, keepdim=True))[0]
    return picture.flatten(1)[:, chosen].view(-1, *size)
