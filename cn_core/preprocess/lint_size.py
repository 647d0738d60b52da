"""What becomes of a control map on its way to the size of the picture. Shapes: H W pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..lines import Size, thinned
from .frames import Frame
from .map_kinds import MapKind

CUT_OFF = 8
"""Fewer pixels than these are no loss."""
WIDEST_LINES = 3.0
"""Of thin lines in pixels for each 512 of the picture's short side: networks saw 1 to 2."""
SMALLEST_SCALE, LARGEST_SCALE = 0.5, 2.5
"""Of a hint of lines on its way to the picture: beyond them lines are lost or broad."""


def size_problems(kind: MapKind, frame: Frame, target: Size) -> Iterator[tuple[str, str]]:
    """(code, text) of what is cut off of H W 3, and of what becomes of lines."""
    height, width = frame.shape[:2]
    if (lost := cut_off((height, width), target)) is not None:
        yield "proportions", f"It {lost}"
    if kind != "lines":
        return
    scale = max(target[0] / height, target[1] / width)
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        fate = "are lost" if scale < 1 else "become coarse"
        yield (
            "scale",
            f"It is {width}x{height} for a picture of {target[1]}x{target[0]}: thin lines {fate}. Make it at the "
            "picture's size (Fit ControlNet Hint).",
        )
    widest = line_width(frame.max(axis=-1) > 0.5) * scale
    if widest > WIDEST_LINES * max(min(target) / 512, 1):
        yield (
            "line width",
            f"Its lines will be about {widest:.1f} pixels wide, and the ControlNet expects 1 to 2. Make it at a "
            "higher resolution.",
        )


def cut_off(size: Size, target: Size) -> str | None:
    """What a hint loses when it is cropped to the proportions of `target`, in words; None for hardly anything."""
    (height, width), aspect = size, target[1] / target[0]
    wide = width / height > aspect
    lost = width - height * aspect if wide else height - width / aspect
    if lost < CUT_OFF:
        return None
    side = "columns" if wide else "rows"
    return f"is {width}x{height}: {lost:.0f} of its {side} will be cut off (resize_mode fill keeps them)."


def line_width(drawing: Frame) -> float:
    """Mean width in pixels of the lines of H W bool: their area by the length of what is left of them when thinned."""
    lines = torch.from_numpy(drawing)
    area, rounds = int(lines.sum()), 0
    while rounds < min(drawing.shape) // 2 and (less := thinned(lines)).sum() < lines.sum():
        lines, rounds = less, rounds + 1
    return area / max(int(lines.sum()), 1)
