"""From a batch of pictures to OpenCV's frames and back: one after another, on all cores.

Everything between reading and storing a frame is NumPy's and OpenCV's: their threads and torch's would hinder each
other. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import HintError
from ..image import resize_short_side

Frame: TypeAlias = NDArray[Any]
"""H W 3 (RGB) or H W, float32 in [0, 1] or uint8."""
MAX_PIXELS, MAX_SIDE = 1 << 26, 32766
"""Of a picture: beyond them scratch memory takes gigabytes, and OpenCV's 16-bit coordinates end."""
LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)


def each_frame(images: Tensor, draw: Callable[[Frame], Frame]) -> Tensor:
    """B 3 H W -> B 3 H W in [0, 1]: `draw` gets H W 3 float32 in [0, 1], which it must not change, and gives a Frame.

    The result has the device and dtype of `images`, and B H W 3 in memory. Raises HintError as `checked` and `read` do.
    """
    return drawn(images, lambda image, _: draw(clamped(read(image))))


def each_frame_into(images: Tensor, draw: Callable[[Frame, Frame], Frame]) -> Tensor:
    """The same with the hint's own memory, H W 3 float32, as a second argument: `draw` may fill and give back that."""
    return filled(images, lambda image, _, hint: draw(clamped(read(image)), hint))


def each_8bit(images: Tensor, draw: Callable[[Frame], Frame]) -> Tensor:
    """The same with H W 3 uint8 for `draw`: rounded, and what lies outside of [0, 1] clamped."""
    return drawn(images, lambda image, _: draw(read_8bit(image)))


def drawn(images: Tensor, draw: Callable[[Tensor, int], Frame]) -> Tensor:
    """B 3 H W -> B 3 H W: `draw` gets 3 H W on the CPU and its place in the batch."""
    return filled(images, lambda image, index, _: draw(image, index))


def filled(images: Tensor, draw: Callable[[Tensor, int, Frame], Frame]) -> Tensor:
    """The same with the memory of the hint as a third argument."""
    checked(images)
    batch, _, height, width = images.shape
    hints = np.empty((batch, height, width, 3), np.float32)
    pictures = images.detach().cpu().unbind()
    in_parallel(lambda index: store(draw(pictures[index], index, hints[index]), hints[index]), batch)
    return torch.from_numpy(hints).movedim(-1, 1).to(device=images.device, dtype=images.dtype)


def in_parallel(work: Callable[[int], None], count: int) -> None:
    """Call `work` for 0 to `count` - 1; OpenCV lets other Python threads run meanwhile."""
    if count == 1:
        work(0)
        return
    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, range(count)):
            pass


def checked(images: Tensor) -> Tensor:
    """The same value. Raises HintError for what is no batch of RGB pictures of floats, empty or too large."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise HintError(
            f"The pictures are {tuple(images.shape)} of {images.dtype}; a preprocessor takes floats in [0, 1] of shape "
            "(batch, 3, height, width)."
        )
    if not images.numel():
        raise HintError(f"The pictures are empty: {tuple(images.shape)} (batch, channels, height, width).")
    height, width = images.shape[2:]
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise HintError(
            f"The picture is {width}x{height} = {height * width} pixels at the resolution asked for; a preprocessor "
            f"takes up to {MAX_PIXELS}, and {MAX_SIDE} a side. Set a resolution of at most {largest(height, width)}."
        )
    return images


def largest(height: int, width: int) -> int:
    """The largest resolution (short side in pixels, a multiple of 8 where there is one) for these proportions."""
    short, long = sorted((height, width))
    side = int(min(math.sqrt(MAX_PIXELS * short / long), MAX_SIDE * short / long))
    return max(side // 8 * 8 or side, 1)


def at_resolution(images: Tensor, resolution: int) -> Tensor:
    """B 3 H W with the short side at `resolution` pixels; 0: the very same value. Raises HintError as `checked`."""
    if resolution and images.ndim == 4 and images.numel():
        height, width = images.shape[2:]
        scale = resolution / min(height, width)
        checked(images[:1, :, :1, :1].expand(-1, -1, round(height * scale), round(width * scale)))
    else:
        checked(images)
    return resize_short_side(images.float(), resolution).to(images.dtype) if resolution else images


def read(image: Tensor) -> Frame:
    """3 H W -> H W 3 float32, without a copy where memory has it so. Raises HintError for NaN and infinite values."""
    import cv2

    frame: Frame = image.float().movedim(0, -1).numpy()
    if not frame.flags.c_contiguous:
        frame = cv2.merge([np.ascontiguousarray(plane) for plane in frame.transpose(2, 0, 1)])
    if not math.isfinite(sum(cv2.sumElems(frame))):
        raise HintError("A picture has NaN or infinite values. Look at the node that made it.")
    return frame


def clamped(frame: Frame) -> Frame:
    """H W 3 float32 within [0, 1], the very same value if it was."""
    import cv2

    low, high, *_ = cv2.minMaxLoc(frame.reshape(len(frame), -1))
    return frame if low >= 0 and high <= 1 else np.clip(frame, 0, 1)


def read_8bit(image: Tensor) -> Frame:
    """3 H W -> H W 3 uint8. Rounded in the picture's own type, halves to even."""
    import cv2

    frame = clamped(read(image))
    if image.dtype == torch.float32:
        return cv2.addWeighted(frame, 255, frame, 0, 0, dtype=cv2.CV_8U)  # saturates and rounds, all in one
    return image.clamp(0, 1).mul(255).round().to(torch.uint8).movedim(0, -1).contiguous().numpy()


def store(frame: Frame, hint: Frame) -> None:
    """A frame of any kind -> H W 3 float32 in [0, 1], in place."""
    import cv2

    if frame.dtype == np.uint8 and frame.ndim == 3:
        cv2.LUT(frame, LEVELS, dst=hint)
    elif frame.ndim == 3:
        np.clip(frame, 0, 1, out=hint)
    else:
        level = cv2.LUT(frame, LEVELS) if frame.dtype == np.uint8 else np.clip(frame, 0, 1)
        cv2.cvtColor(level, cv2.COLOR_GRAY2RGB, dst=hint)


def strongest(frame: Frame) -> Frame:
    """H W 3 -> H W: the largest of the three channels."""
    import cv2

    red, green, blue = cv2.split(frame)
    return cv2.max(cv2.max(red, green), blue)


def weakest(frame: Frame) -> Frame:
    """H W 3 -> H W: the smallest of the three channels."""
    import cv2

    red, green, blue = cv2.split(frame)
    return cv2.min(cv2.min(red, green), blue)
