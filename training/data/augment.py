"""Where a picture and its hint are cut, how large they become, and whether they are mirrored: the same for both.

Shapes: H W pixels of the original, h w of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ...cn_core.image import resize_hint
from .decoding import Pixels, Size
from .pictures import hashed


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A part of the original, and what becomes of it. Pixels of the original, from its upper left corner."""

    original: Size
    top: int
    left: int
    height: int
    width: int
    size: Size
    flip: bool = False

    def words(self) -> tuple[object, ...]:
        """All of it, for hashes."""
        return (self.original, self.top, self.left, self.height, self.width, self.size, self.flip)

    def numbers(self) -> tuple[int, ...]:
        """SDXL's six: original height and width, top and left of the cut in the resized picture, result's h and w."""
        scale = self.size[0] / self.height
        left = self.original[1] - self.left - self.width if self.flip else self.left
        return (*self.original, round(self.top * scale), round(left * scale), *self.size)


def place(original: Size, size: Size, *, flip: bool = False, random_key: str | None = None) -> Placement:
    """The largest part of a picture with the result's proportions: the middle, or by `random_key` any."""
    scale = max(new / old for new, old in zip(size, original, strict=True))
    height, width = (min(max(round(new / scale), 1), old) for new, old in zip(size, original, strict=True))
    free = original[0] - height, original[1] - width
    if random_key is None:
        top, left = free[0] // 2, free[1] // 2
    else:
        top, left = (int(rng_of(random_key, side).integers(0, room + 1)) for side, room in enumerate(free))
    return Placement(original=original, top=top, left=left, height=height, width=width, size=size, flip=flip)


def rng_of(*words: object) -> np.random.Generator:
    """A generator that depends on these values alone."""
    return np.random.default_rng(int(hashed(words), 16))


def cut_image(image: Pixels, placement: Placement) -> Pixels:
    """H W 3 -> h w 3, resampled by Lanczos over areas that grow when shrinking."""
    part = mirrored(cut(image, placement), placement.flip)
    if part.shape[:2] == placement.size:
        return part
    height, width = placement.size
    return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.LANCZOS))


def cut_hint(hint: Pixels, placement: Placement) -> Pixels:
    """The same part of a hint, whose own size may differ -> h w 3. Lines and label colours survive it."""
    part = mirrored(cut(hint, placement), placement.flip)
    if part.shape[:2] == placement.size:
        return part
    levels = torch.from_numpy(part.astype(np.float32) / 255).movedim(-1, 0)[None]
    resized = resize_hint(levels, placement.size, "stretch", "auto")[0].movedim(0, -1)
    return resized.mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def cut(pixels: Pixels, placement: Placement) -> Pixels:
    """The part of a picture of any size that the placement names by its original's size."""
    down, right = (new / old for new, old in zip(pixels.shape[:2], placement.original, strict=True))
    top, left = round(placement.top * down), round(placement.left * right)
    height, width = max(round(placement.height * down), 1), max(round(placement.width * right), 1)
    return pixels[top : top + height, left : left + width]


def mirrored(pixels: Pixels, flip: bool) -> Pixels:
    """Left and right exchanged, or not; contiguous."""
    return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)
