"""What each preprocessor is built on, written down straight with OpenCV and NumPy, one picture at a time.

A frame is H W 3 float32 in [0, 1], as the host has it. `as_8bit` and `as_float` are the usual two conversions, which
also clamp. What other packs do in floats has none. What comes back is H W 3 float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from controlnet_kit.cn_core.preprocess.palettes import colours
from numpy.typing import NDArray

Frame = NDArray[Any]


def as_8bit(frame: Frame) -> Frame:
    """float32 -> uint8."""
    return np.rint(frame * 255).clip(0, 255).astype(np.uint8)


def as_float(frame: Frame) -> Frame:
    """uint8, H W or H W 3 -> H W 3 float32."""
    return rgb(frame).astype(np.float32) / 255


def rgb(frame: Frame) -> Frame:
    """H W or H W 3 -> H W 3."""
    return cv2.merge([frame] * 3) if frame.ndim == 2 else frame


def gaussian(frame: Frame, sigma: float) -> Frame:
    """OpenCV's."""
    return cv2.GaussianBlur(frame, (0, 0), sigma)


def auto_canny(frame: Frame) -> Frame:
    image = as_8bit(frame)
    dx, dy = (cv2.Sobel(image, cv2.CV_16S, *axis, borderType=cv2.BORDER_REPLICATE) for axis in ((1, 0), (0, 1)))
    high = int(np.quantile((np.abs(dx) + np.abs(dy)).max(axis=2), 0.9))
    return as_float(cv2.Canny(dx, dy, int(0.4 * high), high))


def binary(frame: Frame) -> Frame:
    return as_float(cv2.threshold(cv2.cvtColor(as_8bit(frame), cv2.COLOR_RGB2GRAY), 100, 255, cv2.THRESH_BINARY)[1])


def color(frame: Frame) -> Frame:
    small = cv2.resize(as_8bit(frame), (8, 8), interpolation=cv2.INTER_CUBIC)
    return as_float(cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST))


def nearest(image: Frame, palette: Frame) -> Frame:
    pixels, wanted = image.reshape(-1, 3).astype(np.float32), palette.astype(np.float32)
    return palette[((wanted**2).sum(axis=1) - 2 * pixels @ wanted.T).argmin(axis=1)].reshape(image.shape)


def color_palette(frame: Frame) -> Frame:
    image = as_8bit(frame)
    pixels = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    empty = np.zeros((len(pixels), 1), np.int32)
    centres = cv2.kmeans(pixels, 8, empty, (3, 20, 0.5), 1, cv2.KMEANS_PP_CENTERS)[2]
    return as_float(nearest(image, centres.astype(np.uint8)))


def depth_remap(frame: Frame) -> Frame:
    level = frame.mean(axis=2)
    return rgb((level - level.min()) / (level.max() - level.min()))


def lineart(frame: Frame) -> Frame:
    x = frame * 255
    intensity = np.min(gaussian(x, 6) - x, axis=2).clip(0, 255)
    return rgb((intensity / max(16, np.median(intensity[intensity > 8])) * 127).clip(0, 255) / 255)


def normal_from_depth(frame: Frame) -> Frame:
    depth = frame.mean(axis=2)
    right, up = (cv2.Sobel(depth, cv2.CV_32F, *axis, scale=32) for axis in ((1, 0), (0, 1)))
    normals = np.stack([right, up, np.ones_like(depth)], axis=2)
    return normals / np.linalg.norm(normals, axis=2, keepdims=True) / 2 + 0.5


def pencil(frame: Frame) -> Frame:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) + 1 / 16
    return rgb((2 - 2 * grey / gaussian(grey, 8)).clip(0, 1))


def shuffle(frame: Frame) -> Frame:
    size = len(frame)
    random = np.random.default_rng(0)
    maps: list[Frame] = []
    for _ in range(2):
        grid = random.random((size // 256 + 2, size // 256 + 2), dtype=np.float32)
        noise = cv2.resize(grid, (size + 512, size + 512), interpolation=cv2.INTER_CUBIC)[256:-256, 256:-256]
        maps.append((noise - noise.min()) / (noise.max() - noise.min()) * (size - 1))
    return cv2.remap(frame, maps[0], maps[1], cv2.INTER_LINEAR)


def soft_edge(frame: Frame) -> Frame:
    total = np.zeros_like(frame)
    for before, sigma in ((0, 1), (1, 2), (2, 4)):
        frame = gaussian(frame, math.sqrt(sigma**2 - before**2))
        dx, dy = (cv2.Scharr(frame, cv2.CV_32F, *axis, scale=sigma / 32) for axis in ((1, 0), (0, 1)))
        total += np.sqrt(dx**2 + dy**2)
    edges = total.max(axis=2)
    return rgb((edges / np.percentile(edges, 98)).clip(0, 1))


def straight_lines(frame: Frame) -> Frame:
    grey = cv2.cvtColor(as_8bit(frame), cv2.COLOR_RGB2GRAY)
    canvas = np.zeros_like(grey)
    for x0, y0, x1, y1 in cv2.createLineSegmentDetector().detect(grey)[0].reshape(-1, 4):
        if math.hypot(x1 - x0, y1 - y0) >= 16:
            cv2.line(canvas, (round(x0), round(y0)), (round(x1), round(y1)), 255)
    return as_float(canvas)


def tile(frame: Frame) -> Frame:
    small = cv2.resize(frame, (len(frame) // 4, len(frame) // 4), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def tile_guided(frame: Frame) -> Frame:
    small = cv2.resize(frame, (len(frame) // 2, len(frame) // 2), interpolation=cv2.INTER_AREA)
    x = cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    mean = cv2.blur(x, (15, 15))
    variance = cv2.blur(x * x, (15, 15)) - mean * mean
    a = variance / (variance + 0.01)
    return (cv2.blur(a, (15, 15)) * x + cv2.blur(mean - a * mean, (15, 15))).clip(0, 1)


def xdog(frame: Frame) -> Frame:
    x = frame * 255
    difference = np.min(gaussian(x, 5) - gaussian(x, 0.5), axis=2)
    return rgb((2 * difference > 32).astype(np.float32))


PLAIN: dict[str, Callable[[Frame], Frame]] = {
    "auto_canny": auto_canny,
    "binary": binary,
    "blur": lambda frame: cv2.GaussianBlur(frame, (55, 55), 9).clip(0, 1),
    "canny": lambda frame: as_float(cv2.Canny(as_8bit(frame), 100, 200)),
    "color": color,
    "color_palette": color_palette,
    "depth_remap": depth_remap,
    "grey": lambda frame: as_float(cv2.cvtColor(as_8bit(frame), cv2.COLOR_RGB2GRAY)),
    "intensity": lambda frame: as_float(cv2.cvtColor(as_8bit(frame), cv2.COLOR_RGB2HSV)[..., 2]),
    "invert": lambda frame: as_float(255 - as_8bit(frame)),
    "lineart": lineart,
    "luminance": lambda frame: rgb(cv2.cvtColor(frame, cv2.COLOR_RGB2Lab)[..., 0] / 100),
    "normal_from_depth": normal_from_depth,
    "pencil": pencil,
    "scribble": lambda frame: as_float((as_8bit(frame).min(axis=2) < 127).astype(np.uint8) * np.uint8(255)),
    "segmentation_palette": lambda frame: as_float(nearest(as_8bit(frame), colours("ADE20K"))),
    "shuffle": shuffle,
    "softedge": soft_edge,
    "straight_lines": straight_lines,
    "threshold": lambda frame: as_float((as_8bit(frame).min(axis=2) > 127).astype(np.uint8) * np.uint8(255)),
    "tile": tile,
    "tile_guided": tile_guided,
    "xdog": xdog,
}
"""With the default settings of `registry.PREPROCESSORS`, by the same names."""
